"""How a conversion pools that does not say so: known by its name, or refused; never guessed."""

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from embedsvc.checkpoints.families import (
    FAMILIES,
    FROM_CARD,
    FROM_CONFIG,
    FROM_MODULES,
    Family,
    find_family,
)
from embedsvc.diagnosis.verify import verify
from embedsvc.errors import CheckpointError
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.checkpoints import write_bert
from tests.support.conversions import cached, opened
from tests.support.tiny_registry import open_registry

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
    "mlx-community/granite-embedding-english-r2-8bit": "cls",
    "ibm-granite/granite-embedding-97m-multilingual-r2": "cls",
    "intfloat/multilingual-e5-large-instruct": "mean",
    "sentence-transformers/all-mpnet-base-v2": "mean",
    "mlx-community/all-MiniLM-L12-v2-bf16": "mean",
    "thenlper/gte-base-zh": "cls",
    "Alibaba-NLP/gte-large-en-v1.5": "cls",
    "nomic-ai/nomic-embed-text-v2-moe": "mean",
    "nomic-ai/modernbert-embed-base": "mean",
    "mlx-community/nomicai-modernbert-embed-base-4bit": "mean",
    "lightonai/modernbert-embed-large": "mean",
    "Snowflake/snowflake-arctic-embed-m-long": "cls",
    "mlx-community/embeddinggemma-300m-qat-q8_0-unquantized-bf16": "mean",
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
    "BAAI/bge-en-icl",
    "answerdotai/ModernBERT-base",
    "mlx-community/tasksource-ModernBERT-base-embed-4bit",
    "nomicai/modernbert-embed-base",
    "google/embeddinggemma-300m-medical",
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
    assert source.startswith("what is known of BAAI/bge-m3 (FlagOpen/FlagEmbedding ")


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
