"""Measures embedsvc against what a user would run instead. See README.md."""
