"""The HTTP routes: each file a list of Starlette routes."""
