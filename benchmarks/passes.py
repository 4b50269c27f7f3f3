"""Forward passes of one library, timed in a process of their own: python -m benchmarks.passes JOB.

JOB is JSON: engine, folder, dtype, shapes (texts' lengths by name), seconds for each, and switches
to set. Prints a JSON line for each shape. An engine is loaded only where it runs, so each may have
an interpreter of its own.
"""

import base64
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embedsvc.bench.texts import Shape, make_text

Ids = NDArray[np.int32]
Vectors = NDArray[np.float32]
BATCH = 32
"""How many texts a pass has where the library does not choose: sentence-transformers' default."""


class Engine(NamedTuple):
    """A library that has loaded the model."""

    device: str
    begin: Callable[[list[Any]], Any]
    """Starts a batch on the device. It may return before the batch is done."""
    finish: Callable[[Any], Vectors]
    batches: Callable[[list[Any]], list[list[Any]]]
    """How the library would split texts into batches."""
    product: Callable[[int], float]
    """Seconds for a product of two square matrices."""
    tokenizes: bool = False
    """Whether the library takes texts, not token ids."""


def embedsvc(folder: str, dtype: str, switches: dict[str, bool]) -> Engine:
    """embedsvc on MLX. `switches` replace what it found to be faster."""
    import mlx.core as mx

    from embedsvc.catalog.cards import Card
    from embedsvc.checkpoints.checkpoint import open_checkpoint
    from embedsvc.inference.encoder import load_encoder
    from embedsvc.inference.ops.mlx import MlxOps
    from embedsvc.serving.queue import Queue, Submission
    from embedsvc.texts.item import Item

    ops: Any = MlxOps(dtype)  # type: ignore[arg-type]
    encoder = load_encoder(
        ops, open_checkpoint(Card(id="model", path=Path(folder), max_tokens=512))
    )
    for name, value in switches.items():
        setattr(ops, name, value)
    ops.often = 1  # shapes are few, and measured long after they were compiled
    chosen = " ".join(name for name in ("plain", "double_heads", "compile") if getattr(ops, name))

    def batches(texts: list[Ids]) -> list[list[Ids]]:
        queue = Queue(encoder.cost, ops.grid)
        count = len(texts)
        submission = Submission("vector", [b""] * count, count, None, 0.0, None)  # type: ignore[arg-type]
        queue.add(submission, list(map(Item, texts)), 0.0)
        cut: list[list[Ids]] = []
        while len(queue):
            taken = queue.next_batch(encoder.cost.batch_seconds, encoder.max_batch_tokens)
            cut.append([entry.item.ids for entry in taken])
        return cut

    def begin(texts: list[Ids]) -> Any:
        return encoder.begin(list(map(Item, texts)), "vector")

    def finish(begun: Any) -> Vectors:
        return np.array([np.frombuffer(result, "<f4") for result in encoder.collect(begun)])

    def product(size: int) -> float:
        x, y = (mx.random.normal((size, size)).astype(getattr(mx, dtype)) for _ in range(2))
        mx.eval(x, y)
        return best(lambda: mx.eval(x @ y))

    return Engine(f"{ops.device} {chosen}", begin, finish, batches, product)


def transformers(folder: str, dtype: str, _: dict[str, bool]) -> Engine:
    """transformers on torch, with its own attention, mean pooling and normalisation."""
    import torch
    from transformers import AutoModel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
    model = model.to(device).eval()

    @torch.inference_mode()
    def begin(texts: list[Ids]) -> Any:
        ids = np.zeros((len(texts), max(map(len, texts))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        sent, seen = (torch.from_numpy(x).to(device, non_blocking=True) for x in (ids, mask))
        hidden = model(input_ids=sent, attention_mask=seen).last_hidden_state.float()
        pooled = (hidden * seen[:, :, None]).sum(dim=1)
        return torch.nn.functional.normalize(pooled, dim=1)

    return Engine(
        torch_device(), begin, lambda pooled: pooled.cpu().numpy(), by_length, torch_product(dtype)
    )


def sentence_transformers(folder: str, dtype: str, _: dict[str, bool]) -> Engine:
    """sentence-transformers as it is: `encode` makes vectors of texts."""
    import torch
    from sentence_transformers import SentenceTransformer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = SentenceTransformer(
        folder, device=device, local_files_only=True, model_kwargs={"dtype": getattr(torch, dtype)}
    )
    model.max_seq_length = 512

    def encode(texts: list[str]) -> Vectors:
        return model.encode(texts, batch_size=256, show_progress_bar=False)

    def whole(texts: list[str]) -> list[list[str]]:
        return [texts]  # it makes its own batches

    product = torch_product(dtype)
    return Engine(torch_device(), encode, lambda vectors: vectors, whole, product, tokenizes=True)


def torch_device() -> str:
    """The name of the GPU, as people know it."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def torch_product(dtype: str) -> Callable[[int], float]:
    """See `Engine.product`."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def product(size: int) -> float:
        x, y = (torch.randn(size, size, device=device, dtype=getattr(torch, dtype)) for _ in "xy")

        def multiply() -> None:
            (x @ y)[0, 0].item()  # waits for the device

        return best(multiply)

    return product


ENGINES = {engine.__name__: engine for engine in (embedsvc, transformers, sentence_transformers)}


def by_length(texts: list[Ids]) -> list[list[Ids]]:
    """Batches of texts with similar lengths. If all have one length, they stay together."""
    if len({len(ids) for ids in texts}) == 1:
        return [texts]
    ordered = sorted(texts, key=len)
    return [ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH)]


def best(function: Callable[[], object]) -> float:
    """The least seconds of ten times."""
    taken = []
    for _ in range(10):
        began = time.perf_counter()
        function()
        taken.append(time.perf_counter() - began)
    return min(taken)


def one_by_one(engine: Engine, batches: Sequence[list[Ids]]) -> None:
    """Run each batch after the one before it is finished."""
    for batch in batches:
        engine.finish(engine.begin(batch))


def overlapped(engine: Engine, batches: Sequence[list[Ids]], threads: ThreadPoolExecutor) -> None:
    """Start each batch before the one before it is finished, on another thread."""
    last = None
    for batch in batches:
        begun = engine.begin(batch)
        if last is not None:
            last.result()
        last = threads.submit(engine.finish, begun)
    if last is not None:
        last.result()


def measure(engine: Engine, texts: list[Any], seconds: float) -> dict[str, Any]:
    """Milliseconds of the texts alone, in a stream of such texts, and the first time."""
    batches = engine.batches(texts)
    began = time.perf_counter()
    one_by_one(engine, batches)
    first = time.perf_counter() - began
    for _ in range(3):
        one_by_one(engine, batches)
    taken: list[float] = []
    began = time.perf_counter()
    while not taken or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        one_by_one(engine, batches)
        taken.append(time.perf_counter() - start)
    many = list(batches) * max(2, min(100, len(taken)))
    with ThreadPoolExecutor(1) as threads:
        start = time.perf_counter()
        overlapped(engine, many, threads)
        stream = (time.perf_counter() - start) * len(batches) / len(many)
    vector = engine.finish(engine.begin(texts[:1]))[0].astype("<f4")
    return {
        "first_ms": first * 1000,
        "alone_ms": statistics.median(taken) * 1000,
        "stream_ms": stream * 1000,
        "passes": len(batches),
        "vector": base64.b64encode(vector.tobytes()).decode(),
    }


def main() -> None:
    """Run the job that the command line has."""
    job = json.loads(sys.argv[1])
    began = time.perf_counter()
    engine = ENGINES[job["engine"]](job["folder"], job["dtype"], job["switches"])
    loaded = {"load_seconds": time.perf_counter() - began, "device": engine.device}
    loaded["flops"] = 2 * job["size"] ** 3 / engine.product(job["size"])
    tokenizer = Tokenizer.from_file(f"{job['folder']}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for name, lengths in job["shapes"].items():
        rng = random.Random(name)
        texts: list[Any] = [make_text(rng, Shape(name, tokens=n))[0] for n in lengths]
        if not engine.tokenizes:
            texts = [np.array(t.ids, dtype=np.int32) for t in tokenizer.encode_batch(texts)]
        row = measure(engine, texts, job["seconds"])
        print(json.dumps({"shape": name} | loaded | row), flush=True)


if __name__ == "__main__":
    main()
