"""How a conversion pools that does not say so: known by its name, or refused; never guessed."""

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.checkpoints.convert import Precision, convert
from embedsvc.checkpoints.families import (
    FAMILIES,
    FROM_CARD,
    FROM_CONFIG,
    FROM_MODULES,
    Family,
    find_family,
)
from embedsvc.checkpoints.quantized import quantize
from embedsvc.diagnosis.verify import verify
from embedsvc.errors import CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.checkpoints import write_bert, write_json
from tests.support.shapes import WIDTH
from tests.support.tiny import CASES
from tests.support.tiny_registry import open_registry

RECORDED = Path(__file__).parent / "reference" / "architectures"
POOLINGS = {
    "Qwen/Qwen3-Embedding-0.6B": "last_token",
    "mlx-community/Qwen3-Embedding-4B-4bit-DWQ": "last_token",
    "mlx-community/Qwen3-Embedding-8B-mxfp8": "last_token",
    "BAAI/bge-small-en-v1.5": "cls",
    "mlx-community/bge-m3-mlx-fp16": "cls",
    "mlx-community/bge-m3-mlx-8bit": "cls",
    "BAAI/bge-large-zh": "cls",
    "intfloat/e5-base-v2": "mean",
    "mlx-community/multilingual-e5-large-mlx": "mean",
    "mlx-community/all-MiniLM-L6-v2-4bit": "mean",
    "sentence-transformers/paraphrase-multilingual-mpnet-base-v2": "mean",
    "thenlper/gte-base": "mean",
    "Alibaba-NLP/gte-modernbert-base": "cls",
    "nomic-ai/nomic-embed-text-v1.5": "mean",
    "Snowflake/snowflake-arctic-embed-l-v2.0": "cls",
    "mlx-community/mxbai-embed-large-v1": "cls",
    "mlx-community/embeddinggemma-300m-bf16": "mean",
    "jinaai/jina-embeddings-v2-base-en": "mean",
    "WhereIsAI/UAE-Large-V1": "cls",
    "ibm-granite/granite-embedding-30m-english": "cls",
}
UNKNOWN = [
    "acme/bge-m3",
    "mlx-community/bge-m3-retromae",
    "mlx-community/my-bge-m3",
    "BAAI/bge-m3-4bit-retrained",
    "BAAI/bge-reranker-v2-m3",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-Reranker-0.6B",
    "intfloat/e5-mistral-7b-instruct",
    "bge-m3",
    "",
    "/",
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.models[0])
def test_each_row_is_found_by_the_names_in_it_and_has_a_source(family: Family) -> None:
    assert " " in family.source
    for model in family.models:
        for name in (f"{family.organisation}/{model}", f"mlx-community/{model}-4bit"):
            assert find_family(name) is family
    assert any(find_family(name) is family for name in POOLINGS)


def test_a_model_is_in_one_row() -> None:
    models = [model.lower() for family in FAMILIES for model in family.models]
    assert len(models) == len(set(models))


@pytest.mark.parametrize("name", POOLINGS)
def test_the_pooling_of_a_model_that_is_known(name: str) -> None:
    family = find_family(name)
    assert family is not None
    assert family.pooling == POOLINGS[name]


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_name_that_only_contains_or_looks_like_another_is_not_known(name: str) -> None:
    assert find_family(name) is None


def cached(tmp_path: Path, repo: str) -> Path:
    """The folder of a repository in the hub's cache."""
    return tmp_path / f"models--{repo.replace('/', '--')}" / "snapshots" / "0"


def opened(folder: Path, **card: Any) -> Checkpoint:
    return open_checkpoint(Card(id="x", path=folder, **card))


CLS = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}


def test_the_card_comes_first_then_the_module_then_config_json_then_the_name(
    tmp_path: Path,
) -> None:
    folder = write_bert(cached(tmp_path, "BAAI/bge-m3"), pooling_config={"pooling_mode": "max"})
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "lasttoken"}')

    def found(**card: Any) -> tuple[str, str]:
        checkpoint = opened(folder, **card)
        (pooling,) = checkpoint.pooling
        return pooling, checkpoint.pooling_source

    assert found(pooling="mean") == ("mean", FROM_CARD)
    assert found() == ("last_token", FROM_MODULES)
    shutil.rmtree(folder / "1_Pooling")
    assert found() == ("max", FROM_CONFIG)
    write_bert(folder, pooling=None)
    pooling, source = found()
    assert pooling == "cls"
    assert source.startswith("what is known of BAAI/bge-m3 (vllm-project/vllm ")


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ([], r"`pooling_config` does not say how to pool"),
        ({"word_embedding_dimension": 16}, r"`pooling_config` does not say how to pool"),
        ({"pooling_mode": "median"}, "pooling `median` is not supported"),
        ({**CLS, "include_prompt": False}, "include_prompt"),
    ],
)
def test_a_pooling_in_config_json_that_cannot_be_done_is_refused(
    tmp_path: Path, stated: object, said: str
) -> None:
    write_bert(tmp_path, pooling=None, pooling_config=stated or ["cls"])
    with pytest.raises(CheckpointError, match=said):
        opened(tmp_path)


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


def test_the_refusal_names_the_two_lines_that_load_it(tmp_path: Path) -> None:
    write_bert(tmp_path, pooling=None)
    with pytest.raises(CheckpointError) as caught:
        opened(tmp_path)
    assert str(caught.value) == (
        f"model `x`: neither its card nor {tmp_path} says how to pool; give the card a `pooling`, "
        f'as the original model has it. Two lines load it: path = "{tmp_path}" and '
        'pooling = "mean" (or "cls" or "last_token")'
    )
    assert opened(tmp_path, pooling="mean").pooling == ("mean",)


def without_modules(folder: Path) -> None:
    (folder / "modules.json").unlink()
    shutil.rmtree(folder / "1_Pooling")


def without_pooling_folder(folder: Path) -> None:
    shutil.rmtree(folder / "1_Pooling")


def prefixed(folder: Path) -> None:
    without_modules(folder)
    weights = folder / "model.safetensors"
    tensors = {f"model.{name}": value for name, value in load_file(weights).items()}
    save_file(tensors, weights, {"format": "mlx"})


LAYOUTS = {
    "mlx-lm": without_modules,
    "mlx-embeddings": without_pooling_folder,
    "model.": prefixed,
}
MODELS = {
    "bert": "mlx-community/bge-small-en-v1.5-bf16",
    "xlm-roberta": "mlx-community/multilingual-e5-base-mlx",
    "modernbert-transformers": "Alibaba-NLP/gte-modernbert-base",
    "qwen3": "mlx-community/Qwen3-Embedding-0.6B-bf16",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MODELS)
def test_vectors_of_each_layout_equal_the_reference(
    ops: Ops, tmp_path: Path, name: str, layout: str
) -> None:
    case = CASES[name]
    folder = case.write(cached(tmp_path, MODELS[name]))
    LAYOUTS[layout](folder)
    vectors = load_encoder(ops, opened(folder)).encode(case.texts())
    with np.load(RECORDED / f"{name}.npz", allow_pickle=False) as recorded:
        assert np.abs(vectors - recorded["vectors"]).max() <= 1e-5


GEMMA = "mlx-community/embeddinggemma-300m-bf16"


def write_gemma(folder: Path, *, quantized: bool = False) -> NDArray[np.float32]:
    """A Gemma 3 with its Dense layers among its weights; the vectors of the case's texts."""
    case = CASES["gemma3_text"]
    case.write(folder)
    random = np.random.default_rng(3)
    shapes = [(4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH)]
    layers = [random.normal(0, 0.2, shape).astype(np.float32) for shape in shapes]
    tensors: dict[str, NDArray[Any]] = {
        f"model.{name}": value for name, value in load_file(folder / "model.safetensors").items()
    }
    for i, layer in enumerate(layers):
        tensors[f"dense.{i}.weight"] = layer
        if quantized and layer.shape[1] % 32 == 0:
            packed = quantize(layer, 32, 8)
            tensors[f"dense.{i}.weight"] = packed.packed
            tensors |= {f"dense.{i}.scales": packed.scales, f"dense.{i}.biases": packed.biases}
            layers[i] = packed.expanded()
    save_file(tensors, folder / "model.safetensors", {"format": "mlx"})
    with np.load(RECORDED / "gemma3_text.npz", allow_pickle=False) as recorded:
        ends = np.cumsum([len(text) for text in case.texts()])[:-1]
        means = [rows.mean(axis=0) for rows in np.split(recorded["hidden"], ends)]
    vectors = np.stack(means) @ layers[0].T @ layers[1].T
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("listed", [True, False])
def test_dense_layers_among_the_weights_follow_the_pooling(
    ops: Ops, tmp_path: Path, quantized: bool, listed: bool
) -> None:
    folder = cached(tmp_path, GEMMA)
    expected = write_gemma(folder, quantized=quantized)
    without_pooling_folder(folder)
    if listed:
        kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Dense": "Dense"}
        package = "sentence_transformers.models"
        modules = [{"path": p, "type": f"{package}.{kind}"} for p, kind in kinds.items()]
        modules.append({"path": "4_Normalize", "type": f"{package}.Normalize"})
        write_json(folder / "modules.json", modules)
    vectors = load_encoder(ops, opened(folder)).encode(CASES["gemma3_text"].texts())
    assert np.abs(vectors - expected).max() <= 1e-5


def test_a_family_with_dense_layers_is_refused_without_them(tmp_path: Path) -> None:
    folder = CASES["gemma3_text"].write(cached(tmp_path, GEMMA))
    without_pooling_folder(folder)
    with pytest.raises(CheckpointError, match="the 2 Dense layers are missing"):
        opened(folder)


def test_a_dense_layer_that_is_no_matrix_is_refused(tmp_path: Path) -> None:
    write_gemma(tmp_path)
    weights = tmp_path / "model.safetensors"
    save_file(load_file(weights) | {"dense.1.weight": np.zeros(3, "f")}, weights)
    with pytest.raises(CheckpointError, match=r"dense\.1\.weight` has shape \(3,\)"):
        opened(tmp_path)


def test_what_is_converted_says_itself_how_it_pools(tmp_path: Path) -> None:
    folder = cached(tmp_path, GEMMA)
    expected = write_gemma(folder)
    without_pooling_folder(folder)
    convert(opened(folder), tmp_path / "out", Precision("float32"))
    converted = opened(tmp_path / "out")
    assert (converted.pooling, converted.pooling_source) == (("mean",), FROM_MODULES)
    vectors = load_encoder(NumpyOps(), converted).encode(CASES["gemma3_text"].texts())
    assert np.abs(vectors - expected).max() <= 1e-5


def test_verify_says_where_the_pooling_is_from(tmp_path: Path) -> None:
    folder = write_bert(cached(tmp_path, "BAAI/bge-m3"), pooling=None)
    checks = {check.name: check for check in verify(NumpyOps(), opened(folder))}
    assert checks["pooling"].found.startswith("cls, by what is known of BAAI/bge-m3 (")
    alike = checks["equals sentence-transformers"]
    assert alike.found == "the files do not say how to pool as it does here"


def test_a_load_says_once_where_the_pooling_is_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_bert(cached(tmp_path, "BAAI/bge-m3"), pooling=None)
    (tmp_path / "models.toml").write_text(f"[models.a]\npath = '{folder}'\n")

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            await registry.embed("a")
            await registry.embed("a", "again")
            known = registry.description(registry.named("a"))
            assert known is not None
            assert known.pooling_source.startswith("what is known of BAAI/bge-m3 (")

    with caplog.at_level(logging.INFO, "embedsvc"):
        asyncio.run(main())
    (said,) = [record.message for record in caplog.records if "pools by" in record.message]
    assert said.startswith("model `a` pools by what is known of BAAI/bge-m3 (")
