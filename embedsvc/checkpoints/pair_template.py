"""The template by which a decoder is asked whether a document answers a query.

It is the checkpoint's chat template, which is a program in Jinja. A stranger wrote it, so it is
not run as one: see `jinja_parts`. What is made of it, once, are the texts that stand before,
between and behind instruction, query and document.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedsvc.bounds import TEMPLATE
from embedsvc.checkpoints.files import Files, as_array, as_object
from embedsvc.checkpoints.jinja_parts import NotUnderstood, Part, Role, Slot, render

FILE = "chat_template.jinja"
CONFIG = "tokenizer_config.json"
DECODERS = ("qwen3",)
"""Values of `model_type` of models that are asked by a template."""


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """The parts that a pair is put together of, in order, with an instruction and without."""

    instructed: tuple[Part, ...]
    plain: tuple[Part, ...]

    @property
    def takes_instruction(self) -> bool:
        """Whether an instruction has a place in it."""
        return Slot("system") in self.instructed


_BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: "
)
_REST = (
    "\n<Query>: ",
    Slot("query"),
    "\n<Document>: ",
    Slot("document"),
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
)
_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
QWEN3 = PairTemplate(
    (_BEFORE, Slot("system"), *_REST), (_BEFORE + _INSTRUCTION + _REST[0], *_REST[1:])
)
"""The template of Qwen3-Reranker, by its model card, for checkpoints that were converted before it
was put into their files."""


def find_pair_template(
    files: Files, model_type: str, *, needed: bool, is_qwen3: bool
) -> PairTemplate | None:
    """The template of a checkpoint; None where texts are put side by side, as encoders have them.

    `is_qwen3`: it is known as a Qwen3-Reranker, whatever its files have. Raises `CheckpointError`
    if a template is `needed` and there is none that is made for pairs.
    """
    if model_type not in DECODERS:
        return None
    template = _read(files) or (QWEN3 if is_qwen3 else None)
    if template is None and needed:
        raise files.error(FILE, "is missing, or does not put a query and a document into one text")
    return template


def _read(files: Files) -> PairTemplate | None:
    """The template in the files; None if there is none, or one that is not made for pairs."""
    stated = files.read_bytes(FILE)
    if stated is not None:
        source = stated.decode("utf-8", "replace")
    else:
        value: Any = files.read(CONFIG).get("chat_template")
        named = [as_object(each) or {} for each in as_array(value) or ()]
        default = [each.get("template") for each in named if each.get("name") == "default"]
        source = default[0] if default else value
    if not isinstance(source, str):
        return None
    if len(source) > TEMPLATE:
        name = CONFIG if stated is None else FILE
        raise files.error(name, f"has a chat template of more than {TEMPLATE} characters")
    return parse(source)


def parse(source: str) -> PairTemplate | None:
    """The template that a source in Jinja describes; None if it is not one of pairs.

    >>> parse("{{ messages[0].content }}: {{ messages[1]['content'] }}\\n").plain
    (Slot(role='query'), ': ', Slot(role='document'))
    >>> parse("{% for message in messages %}{{ message.content }}{% endfor %}") is None
    True
    """
    plain = _pair(source, ("query", "document"))
    if plain is None or Slot("system") in plain:
        return None
    return PairTemplate(_pair(source, ("system", "query", "document")) or plain, plain)


def _pair(source: str, roles: Sequence[Role]) -> tuple[Part, ...] | None:
    """The parts that messages of these roles give; None unless each of a pair is there once."""
    try:
        parts = render(source, roles)
    except (NotUnderstood, RecursionError):
        return None
    return parts if all(parts.count(Slot(role)) == 1 for role in ("query", "document")) else None
