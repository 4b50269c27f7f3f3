"""Connections: sockets, TLS, HTTP/1.1 as uvicorn speaks it."""
