"""From clients to requests: sockets, TLS, and HTTP/1.1 as uvicorn speaks it."""
