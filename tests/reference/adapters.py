"""Makes LoRA adapters of a tiny BERT with PEFT, and records what it computes with them, in float64.

The tests read what this writes to adapters/, so they need neither torch nor PEFT:

    python -m tests.reference.adapters
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModel

from tests.support.adapters import BASE, CASES, FOLDER
from tests.support.tiny import CASES as MODELS


def load(folder: str) -> Any:
    return AutoModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")


@torch.no_grad()
def main() -> None:
    """Writes a folder for each adapter, and hidden states (N, D) of all texts to hidden.npz."""
    case, hidden = MODELS[BASE], {}
    with tempfile.TemporaryDirectory() as base:
        case.write(Path(base))
        for number, (name, settings) in enumerate(CASES.items()):
            torch.manual_seed(number)
            model: Any = get_peft_model(
                load(base), LoraConfig(init_lora_weights=False, **settings)
            ).eval()
            for part, value in model.named_parameters():
                if value.requires_grad and "lora_embedding" not in part:
                    value.add_(0.1 * torch.randn_like(value))
            model.float().save_pretrained(str(FOLDER / name))
            (FOLDER / name / "README.md").unlink(missing_ok=True)
            config = FOLDER / name / "adapter_config.json"
            said = json.loads(config.read_text()) | {"base_model_name_or_path": "tiny/bert"}
            config.write_text(json.dumps(said, indent=1) + "\n")
            (FOLDER / name / "adapter_model.safetensors").chmod(0o644)
            again = PeftModel.from_pretrained(load(base), str(FOLDER / name)).double()
            merged: Any = again.merge_and_unload().eval()
            states = [
                merged(torch.tensor(ids[None].astype(np.int64))).last_hidden_state[0].numpy()
                for ids in case.texts()
            ]
            hidden[name] = np.concatenate(states).astype(np.float32)
            print(f"{name}: {np.abs(hidden[name]).mean():.2f} on average")
    np.savez_compressed(FOLDER / "hidden.npz", **hidden)


if __name__ == "__main__":
    main()
