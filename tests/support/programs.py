"""Programs that some tests need. `.ci/run` installs them; elsewhere they may be missing."""

import os
import shutil

import pytest


def program(name: str) -> str:
    """The path of a program. Without it the test is skipped, and on CI it fails."""
    found = shutil.which(name)
    if found is None:
        assert not os.environ.get("CI"), f"{name} is not installed; .ci/run does it"
        pytest.skip(f"{name} is not installed")
    return found
