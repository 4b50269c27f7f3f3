"""What `embedsvc doctor` and `embedsvc verify` look at: what is here, and whether it works."""
