"""The commands of `embedsvc`: a module for each, with `EXAMPLES`, `add` and `run`."""
