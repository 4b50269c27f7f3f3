"""Keeping the server running: as a launchd job on a Mac, as a systemd unit on Linux.

A manager (`launchd`, `systemd`) says which files and commands that takes; `machine` writes and runs
them, or only prints them.
"""
