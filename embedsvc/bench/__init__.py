"""A load generator for embedding servers, and a look at what they answer."""
