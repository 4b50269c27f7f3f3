"""Records what transformers takes for what a config.json leaves out, of kinds that it has.

The tests read what this writes to defaults.json, so they need no transformers:

    python -m tests.reference.record_defaults
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from embedsvc.checkpoints.config_defaults import DEFAULTS

FILE = Path(__file__).parent / "defaults.json"
AUTHORS = ("bidirectional_pplx_qwen3", "llama_bidirec", "new")


def main() -> None:
    """Writes every value of every kind's own configuration."""
    kinds = [kind for kind in DEFAULTS if kind not in AUTHORS]
    values = {kind: plain(AutoConfig.for_model(kind).to_dict()) for kind in kinds}
    lines = [f"  {json.dumps(kind)}: {json.dumps(values[kind])}" for kind in kinds]
    known = ",\n".join(lines)
    text = f'{{\n "transformers": "{version("transformers")}",\n "values": {{\n{known}\n }}\n}}\n'
    FILE.write_text(text, encoding="utf-8")


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """What may bear on a pass: numbers, names and switches, and rotary positions."""
    return {
        name: value
        for name, value in config.items()
        if name == "rope_parameters" or isinstance(value, bool | int | float | str)
    }


if __name__ == "__main__":
    main()
