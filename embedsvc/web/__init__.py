"""HTTP: from connections to routes."""
