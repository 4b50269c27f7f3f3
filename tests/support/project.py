"""The checkout: its folder, and the modules of the package. None of them is imported for this."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "embedsvc"


def modules() -> dict[str, Path]:
    """The file of each module, by its dotted name. That of a package is its `__init__.py`."""
    return {dotted(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def dotted(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")
