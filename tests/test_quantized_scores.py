"""Rerankers whose weights are quantised as MLX does it: the same scores as by the weights that the
codes stand for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.quantization import Packing
from embedsvc.checkpoints.quantized import quantize
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.heads import HEADS
from embedsvc.inference.ops.base import Ops
from embedsvc.texts.item import Item
from tests.support.checkpoints import write_json
from tests.support.quantized_cases import WIDE, QuantizedCase, wide_case
from tests.support.shapes import VOCABULARY, Shapes, linear

PACKINGS = (Packing("affine", 4, 64), Packing("affine", 8, 32), Packing("mxfp4", 4, 32))
TOKENS = (7, 9)


def classifier(packing: Packing) -> QuantizedCase:
    wide = wide_case("bert")
    own = {"architectures": ["BertForSequenceClassification"], "num_labels": 2}
    shapes = wide.shapes | linear("classifier", WIDE, 2)
    return QuantizedCase(wide.config | own, shapes, packing=packing)


def decoder(packing: Packing) -> QuantizedCase:
    wide = wide_case("qwen3")
    own = {"architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": True}
    return QuantizedCase(wide.config | own, wide.shapes, packing=packing)


def write(case: QuantizedCase, folder: Path, *, expanded: bool) -> Card:
    case.write(folder)
    (folder / "modules.json").unlink()
    if "ForCausalLM" in case.config["architectures"][0]:
        modules = [("", "base.modules.Transformer"), ("1_LogitScore", "modules.LogitScore")]
        listed = [{"path": at, "type": f"sentence_transformers.{kind}"} for at, kind in modules]
        write_json(folder / "modules.json", listed)
        tokens = dict(zip(("true_token_id", "false_token_id"), TOKENS, strict=True))
        write_json(folder / "1_LogitScore/config.json", tokens)
        content = "{{ messages[0].content }} {{ messages[1].content }}"
        (folder / "chat_template.jinja").write_text(content, encoding="utf-8")
    if expanded:
        config = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", {**config, "quantization": None})
        save_file(weights(case), folder / "model.safetensors")
    return Card(id="x", path=folder)


def weights(case: QuantizedCase) -> dict[str, NDArray[Any]]:
    """What the codes of a case stand for."""
    mode, bits, group_size = case.packing
    return {
        name: value
        if value.ndim < 2 or "position" in name or "token_type" in name
        else quantize(value, group_size, bits, mode).expanded()
        for name, value in case.tensors().items()
    }


@pytest.mark.parametrize("packing", PACKINGS, ids=str)
@pytest.mark.parametrize("make", [classifier, decoder])
def test_scores_are_those_of_the_weights_that_codes_stand_for(
    ops: Ops, make: Any, packing: Packing, tmp_path: Path
) -> None:
    case: QuantizedCase = make(packing)
    items = [Item(ids) for ids in case.texts()]
    found, expected = (
        HEADS["scores"].unpack(
            load_encoder(
                ops, open_checkpoint(write(case, tmp_path / str(expanded), expanded=expanded))
            ).run(items, "scores"),
            items,
        )
        for expanded in (False, True)
    )
    assert found.shape == expected.shape == (len(items), 2 if make is classifier else 1)
    assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("packing", PACKINGS, ids=str)
def test_rows_are_read_of_a_quantised_matrix(packing: Packing, tmp_path: Path) -> None:
    case = decoder(packing)
    card = write(case, tmp_path, expanded=False)
    name = "embed_tokens.weight"
    found = open_checkpoint(card).tensors().rows(name, TOKENS, VOCABULARY, WIDE)
    assert found.tolist() == weights(case)[name][list(TOKENS)].tolist()


def test_no_more_is_read_than_the_rows(tmp_path: Path) -> None:
    shapes: Shapes = {"a.weight": (1000, 16)}
    value = np.arange(16_000, dtype=np.float32).reshape(shapes["a.weight"])
    save_file({"a.weight": value}, tmp_path / "model.safetensors")
    read: list[int] = []
    rows = Tensors("x", tmp_path, read.append).rows("a.weight", [999, 0], 1000, 16)
    assert rows.tolist() == value[[999, 0]].tolist()
    assert sum(read) == 2 * 16 * 4
