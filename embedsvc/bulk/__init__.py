"""Embedding files: rows read from inputs, embedded, written to an output that can be searched."""
