"""The short server a user would write around a library to rank documents; runs in its environment.

    python ranking_wrapper.py ENGINE MODEL_FOLDER THREADS PORT

As in `wrapper.py`, there is one forward pass at a time, on all threads.
"""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Score = Callable[[str, list[str]], Any]
"""A function from a query and documents to logits (n,)."""
MAX_TOKENS = 512
BATCH = 32


def cross_encoder(folder: str, threads: int) -> Score:
    """sentence-transformers' CrossEncoder, on torch."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(threads)
    model = CrossEncoder(folder, device="cpu", local_files_only=True)

    def score(query: str, documents: list[str]) -> Any:
        return model.predict(
            [(query, document) for document in documents],
            batch_size=BATCH,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
        )

    return score


def onnxruntime(folder: str, threads: int) -> Score:
    """ONNX Runtime and the tokenizers library alone, with batches of similar lengths."""
    import numpy as np
    import onnxruntime as ort
    from tokenizers import Tokenizer

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(
        f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"]
    )
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()

    def score(query: str, documents: list[str]) -> Any:
        encoded = tokenizer.encode_batch([(query, document) for document in documents])
        order = sorted(range(len(encoded)), key=lambda index: len(encoded[index].ids))
        logits = np.empty(len(encoded), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            shape = (len(chosen), len(encoded[chosen[-1]].ids))
            ids, mask, types = (np.zeros(shape, dtype=np.int64) for _ in range(3))
            for row, index in enumerate(chosen):
                length = len(encoded[index].ids)
                ids[row, :length] = encoded[index].ids
                types[row, :length] = encoded[index].type_ids
                mask[row, :length] = 1
            fields = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
            logits[chosen] = session.run(None, fields)[0][:, 0]
        return logits

    return score


def llama_cpp(folder: str, threads: int) -> Score:
    """llama.cpp, through llama-cpp-python. It has no token types: all tokens are of the first."""
    import llama_cpp as library
    import numpy as np
    from tokenizers import Tokenizer

    tokens = BATCH * MAX_TOKENS
    model = library.Llama(
        f"{folder}/model-scores-f32.gguf",
        embedding=True,
        pooling_type=library.LLAMA_POOLING_TYPE_RANK,
        n_ctx=tokens,
        n_batch=tokens,
        n_ubatch=tokens,
        n_seq_max=BATCH,
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()

    def score(query: str, documents: list[str]) -> Any:
        context, batch = model._ctx, model._batch  # `embed` takes no pairs
        encoded = tokenizer.encode_batch([(query, document) for document in documents])
        logits = np.empty(len(encoded), dtype=np.float32)
        for start in range(0, len(encoded), BATCH):
            chosen = encoded[start : start + BATCH]
            batch.reset()
            for number, pair in enumerate(chosen):
                batch.add_sequence(pair.ids, number, True)
            context.kv_cache_clear()
            context.decode(batch)
            for number in range(len(chosen)):
                logits[start + number] = library.llama_get_embeddings_seq(context.ctx, number)[0]
        return logits

    return score


ENGINES = {engine.__name__: engine for engine in (cross_encoder, onnxruntime, llama_cpp)}


def main() -> None:
    """Serve until a signal ends the process."""
    import numpy as np

    engine, folder, threads, port = sys.argv[1:]
    score = ENGINES[engine](folder, int(threads))
    pool = ThreadPoolExecutor(1)

    async def rerank(request: Request) -> Response:
        sent = orjson.loads(await request.body())
        loop = asyncio.get_running_loop()
        logits = await loop.run_in_executor(pool, score, sent["query"], sent["documents"])
        scores = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
        results = [
            {"index": int(i), "relevance_score": float(scores[i])}
            for i in np.argsort(-logits, kind="stable")
        ]
        return Response(orjson.dumps({"results": results}), media_type="application/json")

    app = Starlette(routes=[Route("/v1/rerank", rerank, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
