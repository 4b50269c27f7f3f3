"""Records what sentence-transformers makes of texts.json, for the parity tests to compare with.

The tests read only what this writes, so they need neither torch nor sentence-transformers; this
script needs both, and a folder with the model's files:

    python tests/reference/record.py path/to/all-MiniLM-L6-v2

Each text goes through the model alone, in float32 and on one thread, so that no padding and no
other text can touch its vector.
"""

import argparse
import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

HERE = Path(__file__).parent
NAME = "all-MiniLM-L6-v2"
DIMENSION = 384
PACKAGES = ("sentence-transformers", "transformers", "tokenizers", "torch", "numpy")
TOLERANCE = 2e-6
"""How far one component of a vector may be from its value in a padded batch."""


def read_texts() -> list[str]:
    """The recorded texts, in order."""
    texts: list[str] = json.loads((HERE / "texts.json").read_text(encoding="utf-8"))
    return texts


def count_tokens(model: SentenceTransformer, texts: list[str]) -> list[int]:
    """Tokens of each text with [CLS] and [SEP], nothing cut off."""
    limit = model.max_seq_length
    counts = [len(model.tokenizer(text, truncation=False)["input_ids"]) for text in texts]
    for text, count in zip(texts, counts, strict=True):
        if limit is None or count > limit:
            raise SystemExit(f"{count} tokens, the model's limit is {limit}: {ascii(text)[:60]}")
    return counts


def encode(model: SentenceTransformer, texts: list[str], batch_size: int) -> np.ndarray:
    """One vector a text, float32."""
    vectors = model.encode(
        texts, batch_size=batch_size, convert_to_numpy=True, show_progress_bar=False
    )
    return np.ascontiguousarray(vectors, dtype=np.float32)


def check(alone: np.ndarray, padded: np.ndarray, count: int) -> None:
    """Stops unless the vectors are sound and padding changes them by no more than rounding."""
    if alone.shape != (count, DIMENSION) or not np.isfinite(alone).all():
        raise SystemExit(f"expected finite vectors of shape {(count, DIMENSION)}: {alone.shape}")
    norms = np.linalg.norm(alone.astype(np.float64), axis=1)
    print(f"norms: off 1 by at most {np.abs(norms - 1).max():.2e}")
    difference = np.abs(alone - padded).max()
    print(f"alone and in one padded batch: apart by at most {difference:.2e}")
    if np.abs(norms - 1).max() > TOLERANCE or difference > TOLERANCE:
        raise SystemExit(f"more than {TOLERANCE:.0e}: nothing written")


def main() -> None:
    """Encodes the texts, checks the vectors, and writes both files."""
    parser = argparse.ArgumentParser(description="Record reference vectors of texts.json.")
    parser.add_argument("model", type=Path, help="folder with the files of all-MiniLM-L6-v2")
    folder: Path = parser.parse_args().model

    torch.set_num_threads(1)
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True).float().eval()
    texts = read_texts()
    tokens = count_tokens(model, texts)
    alone = encode(model, texts, batch_size=1)
    check(alone, encode(model, texts, batch_size=len(texts)), len(texts))

    checkpoint = (folder / "model.safetensors").read_bytes()
    record: dict[str, Any] = {
        "model": NAME,
        "model.safetensors": {"sha256": hashlib.sha256(checkpoint).hexdigest()},
        "versions": {name: version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "tokens": tokens,
    }
    np.save(HERE / f"{NAME}.npy", alone, allow_pickle=False)
    (HERE / f"{NAME}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{len(texts)} texts of {min(tokens)} to {max(tokens)} tokens recorded")


if __name__ == "__main__":
    main()
