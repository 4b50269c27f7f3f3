"""HTTP, apart from the routes: connections, what concerns every request, the wire format."""
