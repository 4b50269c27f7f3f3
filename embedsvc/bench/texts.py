"""Texts that are new to every cache and have known token counts, and the shapes of load."""

import json
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MAX_TOKENS = 256
"""The longest text, with [CLS] and [SEP]: the limit of the smallest of the popular models."""

_ONE = """
    river stone bread window garden winter summer engine paper letter market bridge doctor teacher
    school street village city country mountain valley forest ocean island harbor ship train car
    road house kitchen table chair door wall roof floor room bed lamp book page story song music
    dance game player team coach goal match race horse dog cat bird fish tree leaf flower grass
    rain snow wind storm cloud sun moon star sky night morning evening day week month year hour
    minute second time clock history war peace king queen prince law court judge police crime
    prison money bank price trade tax budget report office worker union company factory machine
    tool metal iron steel gold silver glass wood cotton wool leather cloth coat shirt shoe hat
    ring watch phone radio screen computer software network data file code test error update
    version server client message address number letter word sentence language reading writing
    question answer problem result reason idea theory science physics chemistry biology medicine
    hospital patient disease treatment heart blood brain bone skin eye ear hand foot head face
    voice sound light color red green blue black white yellow orange brown small large long short
    high low old new young early late fast slow hot cold warm dry wet hard soft strong weak rich
    poor happy sad angry quiet loud clean dark bright deep wide narrow heavy full empty open
    closed first last next same different other many few more less every some all the a of to in
    on at by for with from under over between after before during without against about near
    and or but because while when where how why who what this that these those is was were are
    has had will would can could should must may makes made takes took gives gave finds found
    says said goes went comes came sees saw knows knew thinks thought keeps kept holds held
    brings brought begins began writes wrote reads sends sent pays paid builds built grows grew
    breaks broke falls fell wins won loses lost opens closes moves turns runs walks stops waits
    works plays helps needs wants likes asks tells shows leaves returns arrives starts ends uses
"""
ONE_TOKEN = _ONE.split()
"""Words that are one token in BERT's vocabulary, and in most others."""

_TWO = """
    blueberry saddlebag kettles gooseberry trombones sandpaper greenhouses campfire beekeeper
    toothbrush locksmith turnstile drawbridge windowsill
"""
TWO_TOKENS = _TWO.split()
"""Words that are two tokens. One in twelve words that are sent is one of these."""


@dataclass(frozen=True)
class Request:
    """One HTTP request, ready to be written to a socket."""

    data: bytes
    texts: int
    tokens: int


@dataclass(frozen=True)
class Shape:
    """What is sent, and by how many clients (a closed loop) or at which rate (an open loop)."""

    name: str
    clients: int = 1
    texts: int = 1
    """How many texts one request has."""
    words: tuple[int, int] = (12, 12)
    """The fewest and the most words of a text. Lengths are log-uniform between them."""
    longest: int = MAX_TOKENS
    """The most tokens of a text."""
    tokens: int | None = None
    """Exactly how many tokens each text has, in place of a number of words."""
    rate: float | None = None
    """Requests a second in an open loop, as a Poisson process. None: a closed loop."""


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("single"),
        Shape("single-16", clients=16),
        Shape("bulk", clients=2, texts=32),
        Shape("mixed", clients=16, words=(3, 250)),
    )
}
RANKING_SHAPES = {
    shape.name: shape
    for shape in (
        Shape("rank-32", texts=32, tokens=60),
        Shape("rank-100", texts=100, tokens=200),
        Shape("rank-mixed", clients=16, texts=10, words=(17, 397), longest=400),
    )
}
"""Shapes for servers that rank documents for a query: as a search makes them, as one that is
thorough does, and many clients with documents of any length."""
QUERY = Shape("query", words=(5, 12))
SWEEPS: dict[str, list[Shape]] = {
    "clients": [Shape(f"clients-{n}", clients=n) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256)],
    "texts": [Shape(f"texts-{2**n}", texts=2**n) for n in range(12)],
    "tokens": [
        Shape(f"tokens-{n}", clients=2, texts=32, tokens=n) for n in (8, 16, 32, 64, 128, 256)
    ],
}
"""Series of shapes with more and more clients, texts in a request, or tokens in a text."""


def shape_named(name: str) -> Shape:
    """The shape of that name. Raises `ValueError`.

    >>> shape_named("4x256")  # 4 clients, 256 texts in each request
    Shape(name='4x256', clients=4, texts=256, words=(12, 12), longest=256, tokens=None, rate=None)
    >>> shape_named("open:80").rate  # 80 single texts a second
    80.0
    """
    for named in (SHAPES, RANKING_SHAPES):
        if name in named:
            return named[name]
    if found := re.fullmatch(r"open:([0-9]{1,6}(?:\.[0-9]{1,6})?)", name):
        rate = float(found[1])
        if rate > 0:
            return Shape(name, rate=rate)
    if found := re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", name):
        return Shape(name, clients=int(found[1]), texts=int(found[2]))
    raise ValueError(
        f"no shape {name}: there are {', '.join(SHAPES | RANKING_SHAPES)}, CLIENTSxTEXTS of at "
        "most 9999 each, and open:RATE of at most 999999"
    )


def sweep_named(name: str) -> list[Shape]:
    """The shapes of the sweep of that name. Raises `ValueError`."""
    if name not in SWEEPS:
        raise ValueError(f"no sweep {name}: there are {', '.join(SWEEPS)}")
    return SWEEPS[name]


Ask = Callable[[random.Random, Shape], tuple[dict[str, Any], int]]
"""Makes the fields of a request of a shape, and says how many tokens are in them."""


def make_requests(
    shape: Shape, seed: str, head: str, fields: dict[str, Any], ask: Ask | None = None
) -> Iterator[Request]:
    """Endless requests, the same ones for the same seed: for vectors, or for what `ask` makes.

    Each has the HTTP head `head` and the JSON fields `fields`.
    """
    rng = random.Random(seed)
    while True:
        asked, tokens = (ask or ask_for_vectors)(rng, shape)
        yield Request(http_post(head, fields | asked), shape.texts, tokens)


def ask_for_vectors(rng: random.Random, shape: Shape) -> tuple[dict[str, Any], int]:
    """The texts of a request for vectors, and their tokens."""
    made = [make_text(rng, shape) for _ in range(shape.texts)]
    texts = [text for text, _ in made]
    asked = {"input": texts if shape.texts > 1 else texts[0]}
    return asked, sum(tokens for _, tokens in made)


def ask_for_scores(rng: random.Random, shape: Shape) -> tuple[dict[str, Any], int]:
    """A query and its documents, and the tokens of all pairs: [CLS] query [SEP] document [SEP]."""
    query, of_query = make_text(rng, QUERY)
    made = [make_text(rng, shape) for _ in range(shape.texts)]
    asked = {"query": query, "documents": [text for text, _ in made]}
    return asked, sum(of_query + tokens - 1 for _, tokens in made)


def http_post(head: str, body: dict[str, Any]) -> bytes:
    """An HTTP/1.1 request. `head` has its first line and all headers but the length.

    >>> http_post("POST / HTTP/1.1\\r\\n", {"input": "a"})
    b'POST / HTTP/1.1\\r\\nContent-Length: 14\\r\\n\\r\\n{"input": "a"}'
    """
    content = json.dumps(body).encode()
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def make_text(rng: random.Random, shape: Shape) -> tuple[str, int]:
    """A text and how many tokens it has: [CLS], those of the words, a full stop, [SEP]."""
    if shape.tokens is not None:
        return f"{' '.join(rng.choices(ONE_TOKEN, k=shape.tokens - 3))}.", shape.tokens
    low, high = shape.words
    count = round(math.exp(rng.uniform(math.log(low), math.log(high))))
    words = rng.choices(ONE_TOKEN, k=count)
    twos = min(sum(rng.random() < 1 / 12 for _ in range(count)), max(0, shape.longest - 3 - count))
    words[:twos] = rng.choices(TWO_TOKENS, k=twos)
    return f"{' '.join(words)}.", count + twos + 3
