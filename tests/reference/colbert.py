"""Records what sentence-transformers' MultiVectorEncoder makes of the tiny models in
`tests/support/colbert.py`, in float64:

    python -m tests.reference.colbert

Each text goes through the model alone.
"""

import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from sentence_transformers import MultiVectorEncoder

from tests.reference.architectures import HERE
from tests.support.colbert import COLBERTS, DOCUMENTS, QUERIES


@torch.no_grad()
def main() -> None:
    """Writes a file for each model: the vectors of each text's tokens, and all scores."""
    torch.set_num_threads(1)
    for name, case in COLBERTS.items():
        with tempfile.TemporaryDirectory() as folder:
            model = MultiVectorEncoder(str(case.write(Path(folder))), device="cpu").double().eval()
            queries = [model.encode_query(text) for text in QUERIES]
            documents = [model.encode_document(text) for text in DOCUMENTS]
            scores = model.similarity(queries, documents).numpy()
        print(name, [tuple(x.shape) for x in queries], [tuple(x.shape) for x in documents])
        print(scores.round(2))
        arrays = {f"q{i}": x.numpy().astype("f") for i, x in enumerate(queries)}
        arrays |= {f"d{i}": x.numpy().astype("f") for i, x in enumerate(documents)}
        np.savez_compressed(HERE.parent / "colbert" / f"{name}.npz", scores=scores, **arrays)


if __name__ == "__main__":
    main()
