"""The operations a forward pass is written in, and the two backends that carry them out."""
