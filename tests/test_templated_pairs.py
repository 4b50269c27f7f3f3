"""Pairs that a decoder is asked about: their tokens, and their scores."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Encoding

from embedsvc.catalog.cards import Card, Cards
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.pair_template import PairTemplate
from embedsvc.errors import BadRequest, CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.heads import HEADS
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.serving.registry import open_registry
from embedsvc.serving.score_request import Scores, score_request
from embedsvc.settings import Settings
from embedsvc.texts.halves import EDGES
from embedsvc.texts.item import Item
from embedsvc.texts.pairs import CutPairs, PairOptions, TokenizedPairs, longest_first
from embedsvc.texts.pieces import PIECE
from embedsvc.texts.requests import ScoringRequest
from embedsvc.texts.steps import run_to_end
from embedsvc.texts.templated_pairs import halves, tokenize_templated
from embedsvc.texts.tokenizer import Tokenizer, open_tokenizer
from tests.support.checkpoints import write_json
from tests.support.decoders import INSTRUCTION, LONGEST, PAIRS, write_decoder
from tests.support.tolerance import within

RECORDED = json.loads((Path(__file__).parent / "reference/decoders.json").read_text())
OPTIONS = PairOptions()
END = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
"""What the template puts behind a document."""


def card(folder: Path, **about: str) -> Card:
    return Card(id="x", path=folder, **about)


def tokenized(
    tokenizer: Tokenizer,
    template: PairTemplate,
    pairs: list[tuple[str, str]],
    options: PairOptions = OPTIONS,
    instruction: str = "",
) -> TokenizedPairs:
    queries, documents = zip(*pairs, strict=True)
    return run_to_end(
        tokenize_templated(tokenizer, template, queries, documents, options, instruction)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return open_tokenizer(open_checkpoint(card(folder)), None)


@pytest.fixture
def template(folder: Path) -> PairTemplate:
    found = open_checkpoint(card(folder)).pair_template
    assert found is not None
    return found


# --- scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDED)
def test_scores_equal_sentence_transformers(ops: Ops, name: str, tmp_path: Path) -> None:
    write_decoder(tmp_path, modules=name != "plain", tied=name != "untied")
    task = {"task": "rerank"} if name == "plain" else {}
    checkpoint = open_checkpoint(card(tmp_path, **task))
    assert checkpoint.pair_template is not None
    encoder = load_encoder(ops, checkpoint)
    items = tokenized(
        open_tokenizer(checkpoint, encoder.rows),
        checkpoint.pair_template,
        PAIRS,
        instruction=checkpoint.default_prompt,
    ).items
    scores = HEADS["scores"].unpack(encoder.run(items, "scores"), items)
    alone = [HEADS["scores"].unpack(encoder.run([item], "scores"), [item]) for item in items]
    assert np.abs(scores[:, 0] - RECORDED[name]).max() <= within(1e-5, ops)
    assert np.abs(np.concatenate(alone) - scores).max() <= within(1e-5, ops)


def score(folder: Path, *requests: ScoringRequest, **about: str) -> list[Scores]:
    cards = Cards(folder / "models.toml", *[{"x": card(folder, **about)}] * 2)

    async def scenario() -> list[Scores]:
        async with (
            open_registry(cards, Settings(backend="numpy")) as registry,
            registry.use("x") as engine,
        ):
            return [await score_request(engine, cards.by_id["x"], each) for each in requests]

    return asyncio.run(scenario())


def asked(*pairs: tuple[str, str], **about: str | int) -> ScoringRequest:
    queries, documents = zip(*pairs, strict=True)
    return ScoringRequest(model="x", query=queries, documents=documents, **about)


def test_a_request_may_have_an_instruction_of_its_own(folder: Path) -> None:
    usual, same, other = score(
        folder,
        asked(*PAIRS),
        asked(*PAIRS, instruction=INSTRUCTION),
        asked(*PAIRS, instruction="x"),
    )
    assert np.abs(usual.logits[:, 0] - RECORDED["modules"]).max() <= 1e-5
    assert same.logits.tolist() == usual.logits.tolist()
    assert np.abs(other.logits - usual.logits).max() > 1e-2
    assert usual.truncated == 1
    assert usual.scoring.activation == "identity"


def test_the_logits_are_of_rows_in_whatever_form_they_are_stored(tmp_path: Path) -> None:
    write_decoder(tmp_path)
    checkpoint = open_checkpoint(card(tmp_path))
    whole = checkpoint.tensors().take("embed_tokens.weight", 409, 24)
    rows = checkpoint.tensors().rows("embed_tokens.weight", [405, 0], 409, 24)
    assert rows.tolist() == whole[[405, 0]].tolist()
    with pytest.raises(CheckpointError, match=r"has 409 rows, and one of \[409\] is needed"):
        checkpoint.tensors().rows("embed_tokens.weight", [409], 409, 24)
    with pytest.raises(CheckpointError, match=r"tensor `embed_tokens\.weight` has shape"):
        checkpoint.tensors().rows("embed_tokens.weight", [0], 409, 23)


# --- tokens --------------------------------------------------------------------------------------


def test_what_is_too_long_is_cut_and_the_template_never(
    tokenizer: Tokenizer, template: PairTemplate
) -> None:
    long = " ".join(f"w{n}" for n in range(20_000))
    (end,) = tokenizer.encode([END], special=False)
    for side in ("end", "start"):
        options = PairOptions(side)
        found = tokenized(tokenizer, template, [("q", long), (long, "d"), (long, long)], options)
        assert found.cut == 3
        for item in found.items:
            assert len(item) == LONGEST
            assert item.ids[-len(end) :].tolist() == end.tolist()
    query, document = "to be cut?", "many words " * 300
    (item,) = tokenized(tokenizer, template, [(query, document)]).items
    text = "".join(
        part if isinstance(part, str) else {"query": query, "document": document}[part.role]
        for part in template.plain
    )
    (ids,) = tokenizer.encode([text], special=False)
    assert item.ids.tolist() == [*ids[: LONGEST - len(end)], *end]


def as_one_text(
    tokenizer: Tokenizer, template: PairTemplate, pair: tuple[str, str], options: PairOptions
) -> list[int]:
    """The tokens of a pair that is tokenised whole, and then cut."""
    text, places = "", []
    for part in template.plain:
        own = part if isinstance(part, str) else pair[part.role == "document"]
        if not isinstance(part, str):
            places.append((len(text), len(text) + len(own)))
        text += own
    (ids,), (offsets,) = tokenizer.encode([text], special=False), tokenizer.offsets([text])
    query, document = (
        [index for index, (_, end) in enumerate(offsets) if start < end <= stop]
        for start, stop in places
    )
    room = tokenizer.max_tokens - len(ids) + len(query) + len(document)
    most = (options.max_tokens_per_query, options.max_tokens_per_doc)
    wanted = [
        min(len(found), limit if limit is not None else len(found))
        for found, limit in zip((query, document), most, strict=True)
    ]
    left_out: set[int] = set()
    for found, kept in zip((query, document), longest_first(wanted, room), strict=True):
        left_out |= {*(found[: -kept or None] if options.truncate == "start" else found[kept:])}
    return [token for index, token in enumerate(ids.tolist()) if index not in left_out]


@pytest.mark.parametrize("side", ["end", "start"])
def test_tokens_are_those_of_the_pair_as_one_text(
    tokenizer: Tokenizer, template: PairTemplate, side: CutPairs, random: np.random.Generator
) -> None:
    def some_text() -> str:
        words = random.choice([*EDGES, *" " * 20, *"\n" * 3, "<|im_end|>"], random.integers(0, 400))
        return "".join(words)

    for most_query, most_doc in ((None, None), (1, None), (None, 2), (30, 40), (1, 1)):
        options = PairOptions(side, most_query, most_doc, several=True)
        query = some_text()
        pairs = [*[(query, some_text()) for _ in range(5)], (some_text(), "東京" * 5000)]
        pairs += [(some_text() * 20, some_text() * 20), ("word " * 3000, "x" * 16_000)]
        found = tokenized(tokenizer, template, pairs, options)
        for pair, item in zip(pairs, found.items, strict=True):
            assert item.ids.tolist() == as_one_text(tokenizer, template, pair, options)


def test_a_query_is_tokenised_once_and_no_further_than_it_is_needed(folder: Path) -> None:
    checkpoint = open_checkpoint(card(folder))
    tokenizer, template = open_tokenizer(checkpoint, None), checkpoint.pair_template
    assert template is not None
    halves(tokenizer, template, "")
    given: list[int] = []
    encode = tokenizer._encode

    def counting(texts: Sequence[str], **how: bool) -> list[Encoding]:
        given.extend(map(len, texts))
        return encode(texts, **how)

    tokenizer._encode = counting  # type: ignore[method-assign]
    pairs = [("which one is it? " * 900, f"document {n}") for n in range(100)]
    tokenized(tokenizer, template, pairs)
    assert 15_000 < sum(given) < 2 * (15_000 + 100 * 150)  # once for tokens, once for their places
    given.clear()
    tokenized(tokenizer, template, pairs, PairOptions(max_tokens_per_query=1))
    assert sum(given) < 2 * (2048 + 256 + 100 * 150) + 2048


def test_texts_are_cut_to_their_own_limits(tokenizer: Tokenizer, template: PairTemplate) -> None:
    options = PairOptions("error", max_tokens_per_query=2, max_tokens_per_doc=3)
    pair = ("a b c d? ", "x y z w " * 500)
    found = tokenized(tokenizer, template, [pair], options)
    (empty,) = tokenized(tokenizer, template, [("", "")]).items
    # Without a document, the space before it is a token of its own.
    assert [len(item) - len(empty) for item in found.items] == [2 + 3 - 1]
    assert found.cut == 1
    with pytest.raises(BadRequest, match=rf"'documents'.* {LONGEST} tokens.*scored"):
        tokenized(tokenizer, template, [pair], PairOptions("error"))
    with pytest.raises(BadRequest, match=r"'documents\[1\]'.*more than \d+ tokens"):
        tokenized(tokenizer, template, [("q", "d"), ("q", "d " * PIECE)], PairOptions("error"))


def test_a_text_without_a_query_is_refused(folder: Path) -> None:
    with pytest.raises(BadRequest, match="'query': this model is asked about a query and a doc"):
        score(folder, ScoringRequest(model="x", query=None, documents=["a"]))


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"true_token_id": None}, "`true_token_id` must be the id of a token, not `None`"),
        ({"false_token_id": -1}, "`false_token_id` must be the id"),
        ({"true_token_id": 10_000}, r"tensor `embed_tokens\.weight` has 409 rows"),
        ({"module_input_name": "logits"}, "`module_input_name` = `logits` is not supported"),
    ],
    ids=str,
)
def test_a_logit_score_that_makes_no_sense_is_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    write_decoder(tmp_path)
    file = tmp_path / "1_LogitScore/config.json"
    write_json(file, json.loads(file.read_text()) | change)
    with pytest.raises(CheckpointError, match=message):
        load_encoder(NumpyOps(), open_checkpoint(card(tmp_path)))


def test_one_token_may_be_the_score_by_itself(ops: Ops, tmp_path: Path) -> None:
    write_decoder(tmp_path)
    file = tmp_path / "1_LogitScore/config.json"
    both = json.loads(file.read_text())
    item = Item(np.arange(1, 20, dtype=np.int32))

    def logits(**tokens_: int | None) -> float:
        write_json(file, both | tokens_)
        encoder = load_encoder(ops, open_checkpoint(card(tmp_path)))
        return HEADS["scores"].unpack(encoder.run([item], "scores"), [])[0, 0]

    yes = logits(false_token_id=None)
    no = logits(true_token_id=both["false_token_id"], false_token_id=None)
    assert abs(logits() - (yes - no)) <= within(1e-5, ops)
