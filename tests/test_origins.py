"""What a model was converted from, as README.md and config.json tell it."""

import json
from pathlib import Path

import pytest

from embedsvc.checkpoints.origins import plain
from embedsvc.errors import CheckpointError
from tests.support.checkpoints import write_bert
from tests.support.conversions import opened


@pytest.mark.parametrize(
    "end",
    ["mlx", "mlx-fp16", "bf16", "bfloat16", "float32", "4bit", "4bit-dwq", "8-bit", "q8", "mxfp8",
     "nvfp4", "4bit-gs32", "mixed_3_6", "mlx-8bit"],
)  # fmt: skip
def test_a_name_without_what_converters_add(end: str) -> None:
    assert plain(f"bge-m3-{end}") == "bge-m3"
    assert plain(f"bge-m3-{end}-tuned") == f"bge-m3-{end}-tuned"


SENTENCE = "This model [x/y](https://z) was\nconverted to MLX format from [{}](https://z)\nusing"


@pytest.mark.parametrize(
    ("name", "readme", "config", "known"),
    [
        # Converters write this sentence, and keep the original's base_model.
        ("any", SENTENCE.format("BAAI/bge-m3"), {}, True),
        ("any", "---\nbase_model: BAAI/bge-m3\n---\n" + SENTENCE.format("acme/tuned"), {}, False),
        ("any", "---\nlibrary_name: mlx\nbase_model: BAAI/bge-m3\n---\n", {}, True),
        ("any", "---\nbase_model:\n- BAAI/bge-m3\nbase_model_relation: quantized\n---", {}, True),
        ("any", "---\nbase_model: ['BAAI/bge-m3']\nlibrary_name: mlx\n---", {}, True),
        ("bge-m3-8bit", '---\nbase_model: "BAAI/bge-m3"\n---\n', {}, True),
        ("bge-m3-bfloat16", "---\nbase_model: BAAI/bge-m3\n---\n", {}, True),
        # What a model was trained from says nothing.
        ("tuned", "---\nbase_model: BAAI/bge-m3\n---\n", {}, False),
        ("bge-m3", "---\nbase_model: BAAI/bge-m3\nbase_model_relation: finetune\n---", {}, False),
        ("any", "---\nlibrary_name: mlx\nbase_model: [BAAI/bge-m3, a/b]\n---", {}, False),
        ("any", "base_model: BAAI/bge-m3\n", {}, False),
        ("any", "---\nlibrary_name: mlx\nbase_model: BAAI/bge-m3\n", {}, False),
        ("any", "---\nlibrary_name: mlx\nold:\n  base_model: BAAI/bge-m3\n---", {}, False),
        ("bge-m3-mlx", "", {"_name_or_path": "BAAI/bge-m3"}, True),
        ("tuned", "", {"_name_or_path": "BAAI/bge-m3"}, False),
        ("bge-m3", "", {}, False),
    ],
)
def test_a_model_is_known_by_the_one_it_was_converted_from(
    tmp_path: Path, name: str, readme: str, config: dict[str, str], known: bool
) -> None:
    folder = write_bert(tmp_path / name, pooling=None, **config)
    (folder / "README.md").write_text(readme)
    if known:
        checkpoint = opened(folder)
        assert checkpoint.pooling == ("cls",)
        assert "BAAI/bge-m3, which " in checkpoint.pooling_source
    else:
        with pytest.raises(CheckpointError, match="says how to pool"):
            opened(folder)


@pytest.mark.parametrize("file", ["README.md", "config.json"])
def test_names_of_megabytes_cost_nothing(file: str, tmp_path: Path) -> None:
    """What is taken off a name's end is looked for from each of its letters."""
    name = "BAAI/bge-m3" + "-mlx" * 500_000 + "x"
    folder = write_bert(tmp_path / "model", pooling=None)
    if file == "README.md":
        (folder / file).write_text(f"---\nbase_model: {name}\n---\n")
    else:
        config = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(config | {"_name_or_path": name}))
    with pytest.raises(CheckpointError, match="how to pool"):
        opened(folder)


def test_a_readme_may_be_of_any_length(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "model", pooling=None)
    about = "---\nbase_model: BAAI/bge-m3\nbase_model_relation: quantized\n---\n"
    (folder / "README.md").write_text(about + "word " * 2_000_000)
    assert opened(folder).pooling == ("cls",)
