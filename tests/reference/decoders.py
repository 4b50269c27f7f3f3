"""Records what sentence-transformers' CrossEncoder makes of the tiny decoder in
`tests/support/decoders.py`, in float64:

    python -m tests.reference.decoders
"""

import json
import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from sentence_transformers import CrossEncoder

from tests.support.decoders import PAIRS, write_decoder

FILE = Path(__file__).parent / "decoders.json"


@torch.no_grad()
def main() -> None:
    """Writes the scores of the pairs by each kind of checkpoint."""
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {}
    for name, modules, tied in (
        ("modules", True, True),
        ("untied", True, False),
        ("plain", False, True),
    ):
        with tempfile.TemporaryDirectory() as folder:
            write_decoder(Path(folder), modules=modules, tied=tied)
            model = CrossEncoder(folder, device="cpu").double()
            scores = model.predict(PAIRS, batch_size=1, activation_fn=torch.nn.Identity())
        found[name] = scores.tolist()
        print(name, found[name])
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
