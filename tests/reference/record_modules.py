"""Records what sentence-transformers makes of chains in tests/support/modules_cases.py.

It needs torch and sentence-transformers:

    python -m tests.reference.record_modules
"""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path

from sentence_transformers import SentenceTransformer

from tests.support.checkpoints import write_bert, write_modules
from tests.support.modules_cases import CASES, TEXTS, Module

OUT = Path(__file__).parent / "modules.json"


def vectors(modules: list[Module]) -> list[list[float]]:
    """Vectors of the texts, each computed alone."""
    with tempfile.TemporaryDirectory() as folder:
        write_bert(Path(folder), pooling=None)
        write_modules(Path(folder), *modules)
        model = SentenceTransformer(folder, device="cpu", local_files_only=True)
        found = [model.encode([text], convert_to_numpy=True)[0] for text in TEXTS]
    return [[round(float(value), 7) for value in row] for row in found]


def main() -> None:
    """Writes modules.json."""
    record = {
        "versions": {name: version(name) for name in ("sentence-transformers", "torch")},
        "vectors": {name: vectors(modules) for name, modules in CASES.items()},
    }
    OUT.write_text(json.dumps(record, indent=None) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
