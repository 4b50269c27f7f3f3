"""The largest requests that a server's limits allow, for every route that takes one."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from starlette.routing import BaseRoute

MODEL = "all-MiniLM-L6-v2"
QUERY = "which word?"
TEXT_FIELDS = {
    ("openai", "create_embeddings"): "input",
    ("ollama", "create_embeddings"): "input",
    ("ollama", "create_embedding"): "prompt",
    ("tei", "create_embeddings"): "inputs",
    ("tei", "tokenize"): "inputs",
    ("cohere", "create_embeddings"): "texts",
    ("rerank", "rerank"): "documents",
    ("score", "score"): "text_2",
    ("score", "classify"): "input",
    ("tei_scores", "root"): "inputs",
    ("tei_scores", "predict"): "inputs",
    ("voyage", "rerank"): "documents",
    ("infinity", "rerank"): "documents",
    ("infinity", "classify"): "input",
}
"""Routes that take texts, and the field that has them."""
BESIDE = {"documents": {"query": QUERY}, "text_2": {"text_1": QUERY}}
"""What some of these fields do not go without."""
NAME_FIELDS = {
    ("ollama", "show"): "model",
    ("tei_scores", "similarity"): "model",
    ("instances", "create_instance"): "model",
    ("exo", "create_instance"): "model_id",
    ("exo", "place_instance"): "model_id",
    ("instances", "reload_cards"): "",
}
"""Other routes that take a body, and the field that has a model's name."""
LISTS = ("texts", "documents")
"""Fields that take no text that is not in a list, of some routes at least."""
PATHS = {"model": MODEL, "id": "a", "name": "a", "path": "a"}
HEAD = 16_000
"""How many characters a long path or query has. It is within the limit of a head."""
CLIENTS = 40
"""How many clients do not read their answers."""
SILENT = 4
"""How many clients stop sending in the middle of a body: so few that others are still let in."""


@dataclass(frozen=True)
class Case:
    """A request, which several clients may send at once."""

    name: str
    method: str
    path: str
    body: Callable[[], bytes] = bytes
    clients: int = 1
    silent: bool = False
    """Whether its last byte is never sent."""
    unread: bool = False
    """Whether its answer is not read."""


def handler(route: BaseRoute) -> tuple[str, str]:
    """The module and the function that answer a route."""
    function: Any = getattr(route, "handler", None)
    return (function.__module__.rpartition(".")[2], function.__name__)


def all_cases(routes: list[BaseRoute], most: int) -> tuple[list[Case], list[str]]:
    """Cases for the routes, with bodies of up to `most` bytes; and the routes that have none.

    Of several paths to the same code the first is asked.
    """
    seen: set[tuple[str, str]] = set()
    cases: list[Case] = []
    missing: list[str] = []
    for route in routes:
        known: Any = route
        method, path, by = known.method, known.path, handler(route)
        if by in seen:
            continue
        seen.add(by)
        if method != "POST":
            cases += _heads(method, path)
        elif by in TEXT_FIELDS:
            cases += _texts(path, TEXT_FIELDS[by], most)
            cases += _shapes(path, "model", most)
        elif by in NAME_FIELDS:
            cases += _shapes(path, NAME_FIELDS[by], most)
        else:
            missing.append(f"{method} {path}")
    return [*cases, *_openai(most), *_scores(most)], missing


def _json(**fields: object) -> bytes:
    return json.dumps({"model": MODEL} | fields, ensure_ascii=False).encode()


def _fill(unit: str, most: int) -> str:
    return unit * ((most - 200) // len(json.dumps(unit, ensure_ascii=False).encode()[1:-1]))


def _heads(method: str, path: str) -> Iterator[Case]:
    asked = path.replace(":path", "").replace(":uuid", "")
    long = asked.format(**dict.fromkeys(PATHS, "a" * HEAD)) if "{" in path else asked
    yield Case(f"{method} {path}, long", method, f"{long}?model_id={'b' * (HEAD - len(asked))}")


def _shapes(path: str, field: str, most: int) -> Iterator[Case]:
    """JSON that is deep, wide, long or invalid, and a long name."""
    if field:
        yield Case(f"{path}, long name", "POST", path, lambda: _json(**{field: _fill("a", most)}))
    deep = most // 2 - 50
    yield Case(
        f"{path}, deep JSON", "POST", path, lambda: b'{"x":' + b"[" * deep + b"]" * deep + b"}"
    )
    yield Case(
        f"{path}, wide JSON",
        "POST",
        path,
        lambda: b"{" + b",".join(b'"%07d":0' % n for n in range(most // 13)) + b"}",
    )
    yield Case(
        f"{path}, a list of numbers",
        "POST",
        path,
        lambda: b'{"x":[' + b"1," * (most // 2 - 10) + b"1]}",
    )
    yield Case(f"{path}, no JSON", "POST", path, lambda: b"\xff" * most)
    yield Case(f"{path}, a long number", "POST", path, lambda: b'{"x":' + b"9" * (most - 10) + b"}")


def _texts(path: str, field: str, most: int) -> Iterator[Case]:
    """One long text, and as many short ones as a body has room for."""
    beside = BESIDE.get(field, {})

    def one(text: str) -> bytes:
        return _json(**{field: [text] if field in LISTS else text} | beside)

    def many(text: str) -> bytes:
        return _json(**{field: [text] * 2048} | beside)

    yield Case(f"{path}, one text of words", "POST", path, lambda: one(_fill("word ", most)))
    yield Case(f"{path}, one text of spaces", "POST", path, lambda: one(_fill(" ", most)))
    yield Case(f"{path}, one text of 60000 words", "POST", path, lambda: one("word " * 60_000))
    if field != "prompt":
        words = _fill("word ", most // 2048)
        yield Case(f"{path}, 2048 long texts", "POST", path, lambda: many(words))
        yield Case(f"{path}, 2048 texts of a word", "POST", path, lambda: many("word"))
        count = (most - 100) // 6
        yield Case(
            f"{path}, {count} texts",
            "POST",
            path,
            lambda: _json(**{field: ["wo"] * count} | beside),
        )


def _openai(most: int) -> Iterator[Case]:
    """Cases that only OpenAI's route takes."""
    path = "/v1/embeddings"

    def case(name: str, body: Callable[[], bytes], **more: Any) -> Case:
        return Case(f"{path}, {name}", "POST", path, body, **more)

    units = {"one word": "a", "newlines": "\n", "emoji": "🙂", "Chinese": "中", "marks": "\u0301"}
    for name, unit in units.items():
        yield case(f"one text, {name}", lambda unit=unit: _json(input=_fill(unit, most)))
    yield case("one word of 1 MB", lambda: _json(input="a" * 1_000_000))
    yield case("1 MB of spaces", lambda: _json(input=" " * 1_000_000))
    for truncate in ("end", "start", "chunk"):
        yield case(
            f"one text, truncate: {truncate}",
            lambda truncate=truncate: _json(input=_fill("word ", most), truncate=truncate),
        )
    yield case("30 texts of 8000 tokens", lambda: _json(input=["word " * 8000] * 30))
    yield case("2048 texts of 140 tokens", lambda: _json(input=["word " * 140] * 2048))
    yield case("token ids of one text", lambda: _json(input=[1] * (most // 3 - 50)))
    yield case(
        "token ids of 2048 texts", lambda: _json(input=[[9906] * (most // 2048 // 7)] * 2048)
    )
    yield case(
        "a long prompt", lambda: _json(input=["a"] * 2048, prompt=_fill("word ", most - 20_000))
    )
    yield case("chunks", lambda: _json(input=["a b c"], chunks=[[[0, 5]] * (most // 9)]))
    yield case(
        "chunks of one token",
        lambda: _json(input=["word " * 250] * 1000, chunking={"size": 2, "overlap": 1}),
    )
    yield case("choices", lambda: _json(input=["a"] * 64, embedding_types=["int8"] * (most // 9)))
    yield case(
        "every type of 2048 texts",
        lambda: _json(
            input=[f"word {n}" for n in range(2048)],
            embedding_types=["float", "int8", "uint8", "binary", "ubinary"],
        ),
    )
    yield case(
        f"unread answers of {CLIENTS} clients",
        lambda: _json(input=[f"word {n}" for n in range(2048)]),
        clients=CLIENTS,
        unread=True,
    )
    yield case(
        f"bodies of {SILENT} clients without their last byte",
        lambda: _json(input=_fill("word ", most)),
        clients=SILENT,
        silent=True,
    )


def _scores(most: int) -> Iterator[Case]:
    """Cases that only routes for scores take."""
    words = _fill("word ", most // 2048)

    def rank(name: str, body: Callable[[], bytes]) -> Case:
        return Case(f"/rerank, {name}", "POST", "/rerank", body)

    yield rank(
        "2048 long texts, as TEI's clients send them",
        lambda: _json(query=QUERY, texts=[words] * 2048),
    )
    yield rank(
        "2048 long documents that come back",
        lambda: _json(query=QUERY, documents=[words] * 2048, return_documents=True),
    )
    yield rank(
        "a long query", lambda: _json(query=_fill("word ", most - 20_000), documents=["a"] * 2048)
    )
    yield rank(
        "a query of 16000 characters, of which a token counts",
        lambda: _json(
            query="word " * 3200, documents=["word " * 20] * 2048, max_tokens_per_query=1
        ),
    )
    yield rank(
        "long documents, of which a token counts",
        lambda: _json(query=QUERY, documents=[words] * 2048, max_tokens_per_doc=1),
    )
    yield rank(
        "2048 objects with 32 fields",
        lambda: _json(
            query=QUERY,
            documents=[{f"field {n}": words[: len(words) // 40] for n in range(32)}] * 2048,
            rank_fields=[f"field {n}" for n in range(32)],
        ),
    )
    yield Case(
        "/score, 2048 pairs of long texts",
        "POST",
        "/score",
        lambda: _json(
            text_1=[words[: len(words) // 2]] * 2048, text_2=[words[: len(words) // 2]] * 2048
        ),
    )
    yield Case(
        "/similarity, 2048 long sentences",
        "POST",
        "/similarity",
        lambda: _json(inputs={"source_sentence": QUERY, "sentences": [words] * 2048}),
    )
    yield Case(
        "/predict, 2048 pairs of long texts",
        "POST",
        "/predict",
        lambda: _json(inputs=[[words[: len(words) // 2]] * 2] * 2048),
    )
