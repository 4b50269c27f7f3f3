"""What is recorded of requests: the log, traces, and the histograms of metrics."""
