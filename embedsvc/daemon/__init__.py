"""The server as the operating system keeps it running: a job of launchd, or a unit of systemd.

A manager (`launchd.py`, `systemd.py`) says which files and commands that takes. `actions.py` writes
and runs them, or only prints them.
"""
