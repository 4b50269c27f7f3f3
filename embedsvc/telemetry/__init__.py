"""What is told of requests: the log, traces, and what metrics are made of."""
