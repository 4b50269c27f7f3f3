"""Records what sentence-transformers' SparseEncoder makes of `tests/support/sparse_models.py`, in
float64:

    python -m tests.reference.sparse

Each text goes through the model alone.
"""

import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from sentence_transformers import SparseEncoder

from tests.reference.architectures import HERE
from tests.support.sparse_models import QUERIES, SPARSE_CASES


@torch.no_grad()
def main() -> None:
    """Writes a file for each case."""
    torch.set_num_threads(1)
    for name, case in SPARSE_CASES.items():
        arrays: dict[str, np.ndarray] = {}
        with tempfile.TemporaryDirectory() as folder:
            model = SparseEncoder(str(case.write(Path(folder))), device="cpu").double().eval()
            rows: list[np.ndarray] = []
            for ids in case.texts():
                features = {
                    "input_ids": torch.tensor(ids[None].astype(np.int64)),
                    "attention_mask": torch.ones(1, len(ids), dtype=torch.int64),
                }
                task = {"task": "document"} if case.router else {}
                rows.append(model(features, **task)["sentence_embedding"][0].numpy())
            arrays["weights"] = np.stack(rows).astype(np.float32)
            if case.router:
                queries = model.encode_query(list(QUERIES), convert_to_sparse_tensor=False)
                arrays["queries"] = queries.numpy().astype(np.float32)
        counts = {key: (array > 0).sum(1).tolist() for key, array in arrays.items()}
        print(f"{name}: {counts}, {arrays['weights'].mean():.2f} on average")
        np.savez(HERE / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
