"""Measures embedsvc against what a user would run instead; see README.md."""
