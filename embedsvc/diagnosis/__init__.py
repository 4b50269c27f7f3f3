"""What `embedsvc doctor` finds out: what is here, what is wrong with it, and what would help."""
