"""What `embedsvc` does besides serving: a module for each command, with `add` and `run`."""
