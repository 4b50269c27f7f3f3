"""Templates of pairs: which are understood, and what is made of them."""

import json
from pathlib import Path

import pytest

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.pair_template import QWEN3, parse
from embedsvc.errors import CheckpointError
from tests.support.checkpoints import write_json
from tests.support.decoders import TEMPLATE, write_decoder
from tests.support.tiny import CASES


def test_a_template_is_read_as_jinja_renders_it() -> None:
    found = parse(TEMPLATE)
    assert found is not None
    assert found.takes_instruction
    judge = '<|im_start|>system\nJudge the Document. Answer "yes" or "no".<|im_end|>\n'
    judge += "<|im_start|>user\n"
    after = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert found.instructed == (
        f"{judge}<Instruct>: ", ("system",), "\n<Query>: ", ("query",),
        "\n<Document>: ", ("document",), after,
    )  # fmt: skip
    assert (
        found.plain[0] == f"{judge}<Instruct>: Given a web search query, find passages\n<Query>: "
    )


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        # Jinja takes away a newline behind a statement and at the end, and the space that `-` asks.
        ("{% set a = 'x' %}\n{{ a }} {{ Q }}\n{{ D }}\n", ["x ", 0, "\n", 1]),
        ("a\n  {% set a = 'x' %}\n {{- a -}} \n {{ Q }}{{ D }}\n\n", ["a\nx", 0, 1, "\n"]),
        ("{# {{ no }} #}\n\t{# two #}{{ Q }}{#- three -#} {{ D }}", [0, 1]),
        ("{{ Q }}{{ '\\n\\'\"' }}{{ D }}", [0, "\n'\"", 1]),
        ('{{ Q }}{{ missing | default("a\'b") }}{{ D }}', [0, "a'b", 1]),
        ("{{ Q }}{{ '' | default('x', true) }}{{ ('' | default('y')) }}{{ D }}", [0, "x", 1]),
    ],
)
def test_white_space_and_filters_are_jinjas(source: str, plain: list[str | int]) -> None:
    query = "(messages | selectattr('role', 'eq', 'query') | list | first)['content']"
    document = (
        "messages | selectattr('role', 'equalto', 'document') | map(attribute='content') | first"
    )
    found = parse(source.replace("Q", query).replace("D }}", f"{document} }}}}"))
    assert found is not None
    slots = (("query",), ("document",))
    assert list(found.plain) == [slots[part] if isinstance(part, int) else part for part in plain]
    assert not found.takes_instruction


QUERY, DOCUMENT = "{{ messages[0].content }}", "{{ messages[1].content }}"


@pytest.mark.parametrize(
    "source",
    [
        "",
        "{{",
        QUERY,
        QUERY + QUERY + DOCUMENT,
        "{% for m in messages %}{{ m.content }}{% endfor %}",
        *(f"{{{{ {code} }}}}{QUERY}{DOCUMENT}" for code in (
            "range(9)", "7", "a ~ b", "messages", "messages[0]", "messages[7].content", "''.join",
            "messages[0].__class__", "messages | first", "missing", "'a' | upper", "(" * 9000,
            "'a' | default('b', 'c')", "messages | map(attribute='role') | first", "'\\N{x}'", "",
            "missing | list", "true", "'' | default('x', boolean=true)",
            "'\\ud800'",
        )),
        "{% set a = 'x' * 9 %}" + QUERY + DOCUMENT,
        "{% set a = '" + "x" * 30_000 + "' %}{{ a }}{{ a }}" + QUERY + DOCUMENT,
        "{{ messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first }}",
    ],
)  # fmt: skip
def test_what_is_no_template_of_pairs_is_none(source: str) -> None:
    assert parse(source) is None


def test_a_decoder_without_a_template_for_pairs_is_refused(tmp_path: Path) -> None:
    write_decoder(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}x{% endfor %}")
    with pytest.raises(CheckpointError, match="does not put a query and a document into one text"):
        open_checkpoint(Card(id="x", path=tmp_path))
    (tmp_path / "chat_template.jinja").write_text("x" * 40_000)
    with pytest.raises(CheckpointError, match="chat template of more than 32768 characters"):
        open_checkpoint(Card(id="x", path=tmp_path))


def test_the_template_of_a_model_of_vectors_is_not_looked_at(tmp_path: Path) -> None:
    CASES["qwen3"].write(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("x" * 40_000)
    assert open_checkpoint(Card(id="x", path=tmp_path)).pair_template is None


def test_qwens_rerankers_are_known_though_their_template_is_that_of_a_chat(tmp_path: Path) -> None:
    for name in ("Qwen3-Reranker-0.6B", "mlx-community/Qwen3-Reranker-4B-4bit"):
        path = write_decoder(
            tmp_path / "models--Qwen--Qwen3-Reranker-8B/snapshots/0", modules=False
        )
        (path / "chat_template.jinja").unlink()
        found = open_checkpoint(Card(id="x", path=path, repo=name if "/" in name else None))
        assert found.pair_template == QWEN3
        assert found.task == "rerank"
    settings = json.loads((path / "tokenizer_config.json").read_text())
    own = [{"name": "tools", "template": "x"}, {"name": "default", "template": TEMPLATE}]
    for template in (TEMPLATE, own):
        write_json(path / "tokenizer_config.json", settings | {"chat_template": template})
        assert open_checkpoint(Card(id="x", path=path)).pair_template == parse(TEMPLATE)
