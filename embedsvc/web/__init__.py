"""HTTP: from a client's connection to a route, and from results to an answer."""
