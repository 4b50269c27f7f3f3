"""What a checkpoint gives: which heads it has, and what they make of items."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from embedsvc.catalog.cards import Card, Cards
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.checkpoints.tensors import HOLDERS
from embedsvc.errors import BadRequest, CheckpointError, EmbeddingFailed
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.heads import HEADS, heads_of
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.serving.registry import open_registry
from embedsvc.settings import Settings
from embedsvc.texts.item import Item
from tests.support.checkpoints import write_json, write_modules
from tests.support.classifiers import CLASSIFIERS
from tests.support.tiny import CASES
from tests.support.tolerance import within

RECORDED = Path(__file__).parent / "reference" / "architectures"
NAME = "bert-scores"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return CLASSIFIERS[NAME].write(tmp_path_factory.mktemp("classifier"))


@pytest.fixture
def classifier(folder: Path) -> Checkpoint:
    return open_checkpoint(Card(id=NAME, path=folder))


# --- scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_scores_equal_the_reference_alone_and_together(ops: Ops, name: str, tmp_path: Path) -> None:
    case = CLASSIFIERS[name]
    checkpoint = open_checkpoint(Card(id=name, path=case.write(tmp_path)))
    with np.load(RECORDED / f"{name}.npz", allow_pickle=False) as arrays:
        expected = arrays["scores"]
    encoder, items = load_encoder(ops, checkpoint), case.items()
    together = HEADS["scores"].unpack(encoder.run(items, "scores"), items)
    alone = np.concatenate(
        [HEADS["scores"].unpack(encoder.run([item], "scores"), [item]) for item in items]
    )
    assert checkpoint.labels == expected.shape[1]
    assert np.abs(together - expected).max() <= within(1e-5, ops)
    assert np.abs(alone - expected).max() <= within(1e-5, ops)
    if items[-1].types is not None:
        texts, pairs = np.split(expected, 2)
        assert np.abs(texts - pairs)[2:].max() > 1e-2, "types of tokens make no difference"


def test_a_classifier_may_have_no_pooler(ops: Ops, tmp_path: Path) -> None:
    case = CLASSIFIERS["gte-scores"]
    case.write(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    plain = {name: value for name, value in tensors.items() if "pooler" not in name}
    save_file(plain, tmp_path / "model.safetensors")
    encoder = load_encoder(ops, open_checkpoint(Card(id=NAME, path=tmp_path)))
    backbone = {name: value for name, value in plain.items() if "classifier" not in name}
    save_file(backbone, tmp_path / "model.safetensors")
    vectors = load_encoder(
        ops, open_checkpoint(Card(id=NAME, path=tmp_path, pooling="cls", normalize=False))
    )
    texts = case.texts()
    scores = HEADS["scores"].unpack(encoder.run(list(map(Item, texts)), "scores"), [])
    by_hand = vectors.encode(texts) @ plain["classifier.weight"].T + plain["classifier.bias"]
    assert np.abs(scores - by_hand).max() <= within(1e-5, ops)


def test_a_classifier_that_sentence_transformers_saved_is_the_same(
    ops: Ops, folder: Path, tmp_path: Path
) -> None:
    CLASSIFIERS[NAME].write(tmp_path)
    write_modules(tmp_path)
    settings = {
        "transformer_task": "sequence-classification",
        "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
        "module_output_name": "scores",
    }
    write_json(tmp_path / "sentence_bert_config.json", settings)
    items = CLASSIFIERS[NAME].items()
    first, second = (
        load_encoder(ops, open_checkpoint(Card(id=NAME, path=path))).run(items, "scores")
        for path in (folder, tmp_path)
    )
    assert first == second


@pytest.mark.parametrize("name", ["jina_bert-scores", "mpnet-scores", "qwen3-scores"])
def test_labels_are_counted_where_the_config_names_none(name: str, tmp_path: Path) -> None:
    case = CLASSIFIERS[name]
    case.write(tmp_path)
    named = case.config["id2label"]
    write_json(tmp_path / "config.json", {k: v for k, v in case.config.items() if k != "id2label"})
    checkpoint = open_checkpoint(Card(id=name, path=tmp_path))
    assert checkpoint.labels == len(named)
    assert load_encoder(NumpyOps(), checkpoint).heads["scores"].weights.labels == len(named)


def test_a_classifier_computes_what_it_did_before(folder: Path) -> None:
    card = Card(id=NAME, path=folder)
    cards = Cards(folder / "models.toml", {NAME: card}, {NAME: card})

    async def scenario() -> None:
        async with (
            open_registry(cards, Settings(backend="numpy")) as registry,
            registry.use(NAME) as engine,
        ):
            await engine.check()
            await engine.check()

    asyncio.run(scenario())


def test_a_score_that_is_not_finite_is_an_error(folder: Path, tmp_path: Path) -> None:
    case = CLASSIFIERS[NAME]
    case.write(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["classifier.bias"][1] = np.nan
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="no finite score"):
        load_encoder(NumpyOps(), open_checkpoint(Card(id=NAME, path=tmp_path)))


@pytest.mark.parametrize("case", CLASSIFIERS)
def test_every_tensor_of_a_classifier_is_asked_for(case: str, tmp_path: Path) -> None:
    CLASSIFIERS[case].write(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    optional = "pooler.dense" if case.startswith("gte") else "-"
    beside = [name for name in tensors if "layer" not in name and optional not in name]
    for name in (*beside, next(name for name in tensors if "layer" in name)):
        save_file({k: v for k, v in tensors.items() if k != name}, tmp_path / "model.safetensors")
        plain = HOLDERS.sub("", name)
        with pytest.raises(CheckpointError, match=f"tensor `{plain}` is missing"):
            load_encoder(NumpyOps(), open_checkpoint(Card(id=case, path=tmp_path)))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *(("classifier.weight", shape) for shape in ((), (3,), (3, 24, 1), (3, 23), (0, 24))),
        *(("classifier.bias", shape) for shape in ((), (0,), (3, 1), (2,))),
        ("pooler.dense.weight", (23, 23)),
    ],
)
def test_a_misshapen_tensor_of_a_classifier_is_refused_by_name(
    ops: Ops, name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    CLASSIFIERS[NAME].write(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (stored,) = (key for key in tensors if key.endswith(name))
    tensors[stored] = np.zeros(shape, np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"tensor `(classifier|pooler)\S+` has shape"):
        load_encoder(ops, open_checkpoint(Card(id=NAME, path=tmp_path)))


def test_a_classifier_of_another_kind_of_backbone_is_refused(tmp_path: Path) -> None:
    case = CLASSIFIERS["distilbert-scores"]
    case.write(tmp_path)
    write_json(
        tmp_path / "config.json", case.config | {"architectures": ["BertForSequenceClassification"]}
    )
    with pytest.raises(CheckpointError, match=r"`BertForS\w+` is not supported of model_type `dis"):
        load_encoder(NumpyOps(), open_checkpoint(Card(id=NAME, path=tmp_path)))


def test_a_type_without_a_row_is_refused(ops: Ops, classifier: Checkpoint) -> None:
    encoder = load_encoder(ops, classifier)
    for type_ in (2, -1, 2**31 - 1):
        types = np.array([0, type_, 0], np.int32)
        with pytest.raises(EmbeddingFailed, match=f"no type {type_} of tokens"):
            encoder.run([Item(np.array([4, 5, 6], np.int32), types)], "scores")


def test_every_token_has_a_type_or_none_has(ops: Ops) -> None:
    ids = np.array([4, 5], np.int32)
    for types in ([ids[:1]], [], [ids.astype(np.int64)]):
        with pytest.raises(ValueError, match="type"):
            ops.batch([ids], types)


# --- which heads a checkpoint has ----------------------------------------------------------------


def test_a_model_that_lacks_a_head_says_what_it_gives(folder: Path) -> None:
    embedder = CASES["bert"].write(folder.parent / "embedder")
    both = {"scorer": Card(id="scorer", path=folder), "vectors": Card(id="vectors", path=embedder)}
    cards = Cards(folder / "models.toml", both, both)

    async def scenario() -> None:
        async with open_registry(cards, Settings(backend="numpy")) as registry:
            async with registry.use("scorer") as engine:
                with pytest.raises(BadRequest, match="`scorer` gives scores, not vectors"):
                    await engine.embed(["a cat"])
            async with registry.use("vectors") as engine:
                with pytest.raises(BadRequest, match="`vectors` gives vectors, not scores"):
                    await engine.run("scores", [Item(np.array([4], np.int32))])

    asyncio.run(scenario())


def test_late_chunking_comes_with_mean_pooling(folder: Path) -> None:
    embedder = CASES["bert"].write(folder.parent / "pooled")
    for pooling, heads in (("mean", ("vector", "spans")), ("cls", ("vector",))):
        checkpoint = open_checkpoint(Card(id="x", path=embedder, pooling=pooling))
        assert heads_of(checkpoint) == heads


def test_a_classifier_of_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    case = CLASSIFIERS[NAME]
    case.write(tmp_path)
    other = case.config | {"architectures": ["DebertaV2ForSequenceClassification"]}
    write_json(tmp_path / "config.json", other)
    with pytest.raises(CheckpointError, match="`DebertaV2ForSequenceClassification` is not supp"):
        load_encoder(NumpyOps(), open_checkpoint(Card(id=NAME, path=tmp_path)))


def test_a_classifier_that_its_card_pools_gives_vectors(folder: Path) -> None:
    checkpoint = open_checkpoint(Card(id=NAME, path=folder, pooling="cls"))
    with pytest.raises(CheckpointError, match=r"`classifier\.bias` is not known"):
        load_encoder(NumpyOps(), checkpoint)  # its tensors are not all an embedder's
