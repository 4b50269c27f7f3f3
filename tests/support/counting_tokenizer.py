"""A tokeniser that counts what it is given, and texts for it."""

from embedsvc.texts.inputs import InputOptions, Tokenized, tokenize
from embedsvc.texts.item import TokenIds
from embedsvc.texts.steps import run_to_end
from embedsvc.texts.tokenizer import Tokenizer
from embedsvc.texts.truncation import Rule
from tests.support.project import ROOT

FOLDERS = ROOT / "tests/reference/tokenizers"
KINDS = ["bert", "gemma", "qwen", "roberta", "xlm-roberta"]
PROSE = "The quick (brown) fox_jumps over 12345 straße\tand\n\n東京 🙂.  "
MB = 1_000_000
REFUSED = Rule()


class Counting(Tokenizer):
    """A tokeniser that notes how long the texts were that it was given."""

    def __init__(self, kind: str, max_tokens: int) -> None:
        super().__init__(kind, FOLDERS / kind, max_tokens)
        self.given: list[int] = []

    def _encode(self, texts, *, special, offsets):
        self.given += map(len, texts)
        return super()._encode(texts, special=special, offsets=offsets)


def read(tokenizer: Tokenizer, text: str, rule: Rule = REFUSED, prompt: str = "") -> Tokenized:
    return run_to_end(tokenize(tokenizer, [text], InputOptions(prompt, rule)))


def ids_of(found: Tokenized) -> list[TokenIds]:
    return [item.ids for item in found.items]
