"""Records what sentence-transformers makes of the texts that `embedsvc verify` tries.

It needs torch, sentence-transformers, and folders with the files of models:

    python -m tests.reference.record_canonical path/to/all-MiniLM-L6-v2 ...
"""

import argparse
import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from embedsvc.checkpoints.sample_texts import TEXTS

OUT = Path(__file__).parents[2] / "embedsvc" / "data" / "canonical.json"


def record(folder: Path) -> dict[str, object]:
    """Vectors of the texts, each computed alone in float32, and what weights they are of."""
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True).float().eval()
    vectors = np.concatenate([model.encode([text], prompt="") for text in TEXTS])
    return {
        "sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "by": f"recorded from sentence-transformers {version('sentence-transformers')}",
        "vectors": [[round(float(value), 6) for value in row] for row in vectors],
    }


def main() -> None:
    """Writes canonical.json."""
    parser = argparse.ArgumentParser(description="Record canonical vectors.")
    parser.add_argument("models", type=Path, nargs="+", help="folders with model.safetensors")
    torch.set_num_threads(1)
    recorded = [record(folder) for folder in parser.parse_args().models]
    OUT.write_text(json.dumps(recorded, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
