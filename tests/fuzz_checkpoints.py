"""Checkpoints as strangers may have changed them, loaded in another process, within bounds.

    python -m tests.fuzz_checkpoints 3000            # of seeds 0 to 2999
    python -m tests.fuzz_checkpoints 1 --first 1234  # the one of that seed

Each case is a tiny checkpoint of some architecture with one change (`mutations.py`), loaded on one
backend. What may come of it is vectors, finite and of length 1 (those of the unchanged checkpoint,
if the change does not matter), or one line that names a file. A worker does many cases; when one
ends it, or takes more memory or time than there is, that is what came of the case.
"""

import argparse
import json
import os
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import Checkpoint, open_checkpoint
from embedsvc.errors import RequestError, SetupError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.heads import HEADS
from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.native import NativeOps
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.texts.item import Item
from embedsvc.texts.pairs import PairOptions, tokenize_pairs
from embedsvc.texts.steps import run_to_end
from embedsvc.texts.templated_pairs import tokenize_templated
from embedsvc.texts.tokenizer import Tokenizer, open_tokenizer
from tests.support.checkpoints import write_json
from tests.support.classifiers import CLASSIFIERS
from tests.support.decoders import DECODER
from tests.support.mutations import mutate
from tests.support.quantized_cases import QUANTIZED, WIDE
from tests.support.shapes import WIDTH
from tests.support.tiny import CASES
from tests.support.torch_files import as_torch

MEMORY = 512 << 20
"""How many bytes a worker may take more than when it begins."""
SECONDS = 60
"""A worker that does not answer in this time hangs."""
TEXTS = ["hello world", "a b c d e f g h i j k l m n o p", "z"]
BACKENDS = ("native", "numpy")
TORCH = {"bert-torch": 1, "distilbert-torch": 2}
"""Those whose weights are in files of torch's, and in how many."""
SOURCES = (
    CASES
    | QUANTIZED
    | CLASSIFIERS
    | {"qwen3-logits": DECODER}
    | {name: CASES[name.removesuffix("-torch")] for name in TORCH}
)
"""What is changed."""


def write(name: str, folder: Path) -> None:
    """Write the unchanged checkpoint, with every file that is read."""
    SOURCES[name].write(folder)
    if SOURCES[name] is DECODER:
        return
    width = WIDE if name in QUANTIZED else WIDTH
    about = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "unk_token": "[UNK]"}
    write_json(folder / "tokenizer_config.json", about | {"model_max_length": 64})
    write_json(folder / "special_tokens_map.json", {"cls_token": "[CLS]", "sep_token": "[SEP]"})
    write_json(folder / "added_tokens.json", {"[PAD]": 0, "hello": 30})
    settings = {"prompts": {"query": "hello ", "document": ""}, "activation_fn": "torch.nn.Tanh"}
    write_json(folder / "config_sentence_transformers.json", settings)
    if name in CLASSIFIERS:
        return
    modules = json.loads((folder / "modules.json").read_text())
    if SOURCES[name].config["model_type"] == "static":
        modules[:2] = [{"path": "", "type": "sentence_transformers.models.StaticEmbedding"}]
    modules.insert(-1, {"path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    write_json(folder / "modules.json", modules)
    write_json(folder / "3_Dense" / "config.json", {"in_features": width, "out_features": 8})
    random = np.random.default_rng(3)
    weights = {"linear.weight": random.normal(size=(8, width)), "linear.bias": np.ones(8)}
    tensors = {key: value.astype(np.float32) for key, value in weights.items()}
    save_file(tensors, folder / "3_Dense" / "model.safetensors")
    if name in TORCH:
        as_torch(folder, TORCH[name])


def encode(ops: Ops, folder: Path) -> np.ndarray:
    """The vectors of the texts, or their scores."""
    checkpoint = open_checkpoint(Card(id="x", path=folder))
    encoder = load_encoder(ops, checkpoint)
    tokenizer = open_tokenizer(checkpoint, encoder.rows)
    head = next(iter(encoder.heads))
    if head == "scores":
        items = pairs(tokenizer, checkpoint)
    else:
        ids = [each[: checkpoint.max_tokens] for each in tokenizer.encode(TEXTS)]
        items = [Item(each) for each in ids if len(each)]
    vectors = HEADS[head].unpack(encoder.run(items, head), items)
    assert np.isfinite(vectors).all(), "vectors that are not finite"
    if checkpoint.normalize and head == "vector":
        lengths = np.linalg.norm(vectors, axis=1)
        assert np.abs(lengths - 1).max() < 1e-4, "vectors that are not of length 1"
    return vectors


def pairs(tokenizer: Tokenizer, checkpoint: Checkpoint) -> list[Item]:
    """Each text as a query for the one after it, or for all that its model takes of it."""
    queries, template = [TEXTS[-1], *TEXTS[:-1]], checkpoint.pair_template
    if template is None:
        work = tokenize_pairs(tokenizer, queries, TEXTS, PairOptions())
    else:
        work = tokenize_templated(tokenizer, template, queries, TEXTS, PairOptions())
    return [item for item in run_to_end(work).items if len(item)]


class Worker:
    """Loads changed checkpoints, one after the other."""

    def __init__(self, sources: Path) -> None:
        self.sources = sources
        self.ops: dict[str, Ops] = {"numpy": NumpyOps(cores=1), "native": NativeOps(cores=1)}
        self.plain: dict[tuple[str, str], np.ndarray] = {}

    def outcome(self, name: str, backend: str, seed: int) -> dict[str, str]:
        """Load the checkpoint that a seed makes; return the outcome, and what was changed."""
        ops = self.ops[backend]
        if (name, backend) not in self.plain:
            self.plain[name, backend] = encode(ops, self.sources / name)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            shutil.copytree(self.sources / name, folder)
            change = mutate(seed, folder)
            try:
                vectors = encode(ops, folder)
            except (SetupError, RequestError) as error:
                return {"change": change, "came": self._error(error, str(folder), change)}
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
                return {"change": change, "came": f"wrong: {type(error).__name__}: {error}"}
            plain = self.plain[name, backend]
            same = vectors.shape == plain.shape and np.array_equal(vectors, plain)
            if change.startswith("harmless") and not same:
                return {"change": change, "came": "wrong: other vectors"}
            return {"change": change, "came": "same vectors" if same else "other vectors"}

    def _error(self, error: Exception, folder: str, change: str) -> str:
        said = str(error)
        if change.startswith("harmless"):
            return f"wrong: refused: {said}"
        if isinstance(error, RequestError):  # the model loads, and refuses a text
            return "no vector"
        if "\n" in said or len(said) > 2000 or not said.isprintable():
            return f"wrong: no one line: {said!r}"
        names = folder in said or type(error).__name__ == "DoesNotFit"
        return "refused" if names or "give its card" in said else f"wrong: names no file: {said}"


def work(sources: Path) -> None:
    """Answer each case on standard input with a line, with bounded memory."""
    worker = Worker(sources)
    for name in SOURCES:  # what is loaded only once must not count for the first case
        for backend in BACKENDS:
            worker.plain[name, backend] = encode(worker.ops[backend], sources / name)
    if sys.platform == "linux":
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(worker.outcome(*json.loads(line))), flush=True)


class Process:
    """The process of a worker."""

    def __init__(self, sources: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz_checkpoints", "--work", str(sources)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"TOKENIZERS_PARALLELISM": "false", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdin
        assert self._process.stdout
        self._to, self._of = self._process.stdin, self._process.stdout
        self._ready = selectors.DefaultSelector()
        self._ready.register(self._of, selectors.EVENT_READ)
        if self.read() is None:
            raise RuntimeError("the worker does not begin")

    def read(self) -> dict[str, str] | None:
        """The next line of the worker; None if it ended or hangs."""
        if not self._ready.select(SECONDS):
            return None
        line = self._of.readline()
        return json.loads(line) if line else None

    def ask(self, case: tuple[str, str, int]) -> dict[str, str] | None:
        """The outcome of a case; None if the worker ended or hangs."""
        self._to.write(json.dumps(case) + "\n")
        self._to.flush()
        return self.read()

    def end(self) -> str:
        """Stop the worker, and return how it ended."""
        with suppress(BrokenPipeError):
            self._to.close()  # then it ends, unless it hangs
        try:
            code, hung = self._process.wait(10), False
        except subprocess.TimeoutExpired:
            self._process.kill()
            code, hung = self._process.wait(10), True
        self._of.close()
        self._ready.close()
        return "it hangs" if hung else f"it ended with {code}"


class Fuzz:
    """Tries cases by their seeds, in a worker that is replaced when a case ends it."""

    def __init__(self, sources: Path) -> None:
        for name in SOURCES:
            write(name, sources / name)
        self._sources = sources
        self._process = Process(sources)

    def outcome(self, seed: int) -> tuple[str, str]:
        """What was changed in a case, and its outcome."""
        names = list(SOURCES)
        name, backend = names[seed % len(names)], BACKENDS[seed // len(names) % len(BACKENDS)]
        found = self._process.ask((name, backend, seed))
        if found is None:
            found = {"change": "?", "came": f"wrong: {self._process.end()}"}
            self._process = Process(self._sources)
        return f"{seed}: {name}, {backend}, {found['change']}", found["came"]

    def close(self) -> None:
        """End the worker."""
        self._process.end()


def main() -> int:
    """Count the outcomes of so many cases, and print those that went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=int, nargs="?", default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work)
        return 0
    came: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as sources, closing(Fuzz(Path(sources))) as fuzz:
        for seed in range(given.first, given.first + given.cases):
            case, found = fuzz.outcome(seed)
            came[found.partition(":")[0]] += 1
            if found.startswith("wrong"):
                print(f"{case}: {found[:500]}", flush=True)
    print(dict(came))
    return 1 if came["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
