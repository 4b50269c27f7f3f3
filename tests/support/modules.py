"""The modules of the package, found as files: nothing is imported for it."""

from pathlib import Path

import embedsvc

PACKAGE = Path(embedsvc.__file__).parent


def modules() -> dict[str, Path]:
    """The file of each module by its dotted name; of a package, its `__init__.py`."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {dotted(file): file for file in files}


def dotted(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")
