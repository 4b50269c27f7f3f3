"""Records what torch.save writes, for `tests/test_torch_file.py`.

pip install torch
python -m tests.reference.record_torch_files
"""

from collections import OrderedDict
from pathlib import Path

import torch

HERE = Path(__file__).parent / "torch_files"


def main() -> None:
    """Write a file of each kind. The numbers are 0, 1, 2 and so on."""
    HERE.mkdir(exist_ok=True)
    layer = torch.nn.Linear(4, 3)
    layer.weight.data = torch.arange(12.0).reshape(3, 4)
    layer.bias.data = torch.arange(3.0)
    state = layer.state_dict()
    for protocol in (2, 3, 4, 5):
        torch.save(state, HERE / f"protocol{protocol}.bin", pickle_protocol=protocol)
    torch.save(dict(layer.named_parameters()), HERE / "parameters.bin")
    torch.save(state, HERE / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.jit.script(layer).save(str(HERE / "script.bin"))
    whole = torch.arange(24.0).reshape(4, 6)
    views = OrderedDict(
        F32=whole, F64=whole.double(), F16=whole.half(), BF16=whole.bfloat16(), I64=whole.long(),
        I32=whole.int(), U8=whole.byte(), turned=whole.t(), some=whole[1:3, ::2], row=whole[2],
        number=whole[3, 5], nothing=torch.zeros(0, 3),
    )  # fmt: skip
    torch.save(views, HERE / "views.bin")


if __name__ == "__main__":
    main()
