"""The bodies of requests: unpacked, decoded, parsed, within bounds."""
