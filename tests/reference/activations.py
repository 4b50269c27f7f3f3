"""Records what transformers' activations make of some numbers, in float64.

The tests read what this writes to activations.npz, so they need no transformers:

    python -m tests.reference.activations
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.activations import ACT2FN

FILE = Path(__file__).parent / "activations.npz"
NUMBERS = np.concatenate(
    [np.linspace(-12, 12, 193), [-1e4, -87.5, -30, -1e-3, -1e-6, 1e-6, 1e-3, 30, 87.5, 1e4]]
).astype(np.float32)


@torch.no_grad()
def main() -> None:
    """Writes the numbers (N,), what each activation makes of them, and what it has learned."""
    recorded: dict[str, Any] = {"numbers": NUMBERS}
    for name in ACT2FN:
        function = ACT2FN[name].double()
        for part, value in function.state_dict().items():
            recorded[f"{name}/{part}"] = value.float().numpy()
        recorded[name] = function(torch.tensor(NUMBERS, dtype=torch.float64)).numpy()
    np.savez_compressed(FILE, **recorded)


if __name__ == "__main__":
    main()
