"""`embedsvc embed` as it is typed, in a folder with texts and tiny models."""

import json
from pathlib import Path

from embedsvc.cli import main
from tests.support.checkpoints import write_bert

WORDS = "hello world a b c d e f"
TEXTS = [f"{word} {other}" for word in WORDS.split() for other in WORDS.split()]


def write_folder(folder: Path, tiny_folder: Path) -> None:
    """A cards file, and `in.jsonl`, which has a row for each of `TEXTS`."""
    (folder / "models.toml").write_text(
        f"""
        [models.tiny]
        path = '{tiny_folder}'
        aliases = ["alias"]
        prompts = {{query = "a b ", document = "c d "}}
        prompt_aliases = {{tiny-query = "query"}}
        dimensions = [8]
        [models.other]
        path = '{write_bert(folder / "other", intermediate_size=48)}'
        """
    )
    rows = [{"key": f"k{i}", "body": text, "n": i} for i, text in enumerate(TEXTS)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def embed(*arguments: str) -> int:
    return main(["embed", "in.jsonl", "--column", "body", "--backend", "numpy", *arguments])
