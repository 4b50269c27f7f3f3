"""A load generator for embedding servers, which also checks what they answer."""
