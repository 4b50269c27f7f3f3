"""The event loop that everything runs on."""

import asyncio
import sys


def new_event_loop() -> asyncio.AbstractEventLoop:
    """One of uvloop's, or on Windows, where there is no uvloop, of asyncio's."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()
