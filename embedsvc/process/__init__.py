"""The process and the system it runs on."""
