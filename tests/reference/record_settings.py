"""Records what sentence-transformers makes of its settings, and what it writes itself.

The tests read what this writes to settings.json, so they need neither it nor torch:

    python -m tests.reference.record_settings
"""

import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules

from tests.support.settings_cases import CASES, TEXTS, write

FILE = Path(__file__).parent / "settings.json"


def vectors(folder: Path) -> list[list[float]]:
    """Of each text alone."""
    model = SentenceTransformer(str(folder), device="cpu")
    rows = [model.encode([text])[0] for text in TEXTS]
    return [[round(float(x), 7) for x in row] for row in rows]


def saved(folder: Path) -> dict[str, Any]:
    """A model put together and saved by the library: every JSON file, and its vectors."""
    source, out = folder / "source", folder / "out"
    write(source, {})
    transformer = modules.Transformer(str(source), max_seq_length=12, do_lower_case=True)
    torch.manual_seed(3)
    chain = [transformer, modules.Pooling(16, ("mean", "cls")), modules.Dense(32, 8)]
    model = SentenceTransformer(
        modules=[*chain, modules.LayerNorm(8), modules.Normalize()],
        device="cpu",
        prompts={"query": "hello "},
        default_prompt_name="query",
    )
    model.save(str(out))
    files = {
        str(file.relative_to(out)): json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(out.rglob("*.json"))
    }
    weights = {
        str(file.parent.relative_to(out)): file.read_bytes().hex()
        for file in sorted(out.rglob("*.safetensors"))
        if file.parent != out
    }
    return {"files": files, "weights": weights, "vectors": vectors(out)}


def main() -> None:
    """Writes the vectors of each case, and the files of the one that was saved."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name, files in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = vectors(write(Path(folder), files))
    with tempfile.TemporaryDirectory() as folder:
        made = saved(Path(folder))
    versions = {name: version(name) for name in ("sentence-transformers", "transformers")}
    record = {"versions": versions, "vectors": found, "saved": made}
    FILE.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(found)} cases")


if __name__ == "__main__":
    main()
