"""The short server a user would write around a library; runs in that library's own environment.

    python wrapper.py ENGINE MODEL_FOLDER THREADS PORT

One forward pass at a time, on all threads: together they would only take the cores from each other.
THREADS is `cuda` for a GPU; sentence-transformers alone runs there.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Encode = Callable[[list[str]], Any]
"""A function from texts to their vectors (n, D) in float32."""
MAX_TOKENS = 256
BATCH = 32
GPU_BATCH = 256


def sentence_transformers(folder: str, threads: int) -> Encode:
    """sentence-transformers, on torch."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(folder, device="cpu", local_files_only=True)
    return lambda texts: model.encode(texts, batch_size=BATCH, show_progress_bar=False)


def sentence_transformers_cuda(folder: str) -> Encode:
    """sentence-transformers on a GPU, in float16 and with larger batches."""
    import torch
    from sentence_transformers import SentenceTransformer

    half = {"dtype": torch.float16}
    model = SentenceTransformer(folder, device="cuda", local_files_only=True, model_kwargs=half)

    def encode(texts: list[str]) -> Any:
        return model.encode(texts, batch_size=GPU_BATCH, show_progress_bar=False).astype("float32")

    return encode


def fastembed(folder: str, threads: int, file: str = "model.onnx") -> Encode:
    """fastembed, on ONNX Runtime, with a custom model."""
    import numpy as np
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = "local/model"
    config = json.loads(Path(folder, "config.json").read_text())
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=name),
        dim=config["hidden_size"],
        model_file=file,
    )
    model = TextEmbedding(name, specific_model_path=folder, threads=threads)
    return lambda texts: np.stack(list(model.embed(texts, batch_size=BATCH)))


def onnxruntime(folder: str, threads: int, file: str = "model.onnx") -> Encode:
    """ONNX Runtime and the tokenizers library alone."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(f"{folder}/{file}", options, providers=["CPUExecutionProvider"])
    return _padded(folder, lambda fields: session.run(None, fields)[0])


def openvino(folder: str, threads: int, precision: str = "f32", file: str = "model.onnx") -> Encode:
    """OpenVINO, which by default takes bfloat16 where the processor has it."""
    import openvino as ov

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
    }
    model = ov.Core().compile_model(f"{folder}/{file}", "CPU", settings)
    return _padded(folder, lambda fields: model(fields)[0])


def llama_cpp(folder: str, threads: int, file: str = "model-f32.gguf") -> Encode:
    """llama.cpp, through llama-cpp-python."""
    import numpy as np
    from llama_cpp import Llama

    model = Llama(
        f"{folder}/{file}",
        embedding=True,
        n_ctx=BATCH * MAX_TOKENS,
        n_batch=BATCH * MAX_TOKENS,
        n_ubatch=BATCH * MAX_TOKENS,
        n_seq_max=BATCH,
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )

    def encode(texts: list[str]) -> Any:
        batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        rows = [row for batch in batches for row in model.embed(batch, normalize=True)]
        return np.array(rows, dtype=np.float32)

    return encode


def _padded(folder: str, forward: Callable[[dict[str, Any]], Any]) -> Encode:
    """Padded batches of similar lengths, mean pooling, unit length."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    width: int = json.loads(Path(folder, "config.json").read_text())["hidden_size"]

    def encode(texts: list[str]) -> Any:
        encoded = tokenizer.encode_batch(texts)
        order = sorted(range(len(texts)), key=lambda index: len(encoded[index].ids))
        vectors = np.empty((len(texts), width), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            ids = np.zeros((len(chosen), len(encoded[chosen[-1]].ids)), dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, index in enumerate(chosen):
                ids[row, : len(encoded[index].ids)] = encoded[index].ids
                mask[row, : len(encoded[index].ids)] = 1
            hidden = forward(
                {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            )
            pooled = (hidden * mask[:, :, None].astype(np.float32)).sum(axis=1)
            vectors[chosen] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return vectors

    return encode


ENGINES: dict[str, Callable[[str, int], Encode]] = {
    "sentence_transformers": sentence_transformers,
    "fastembed": fastembed,
    "fastembed_int8": partial(fastembed, file="model-int8.onnx"),
    "onnxruntime": onnxruntime,
    "onnxruntime_int8": partial(onnxruntime, file="model-int8.onnx"),
    "openvino": openvino,
    "openvino_bfloat16": partial(openvino, precision="bf16"),
    "openvino_int8": partial(openvino, file="openvino-int8/model.xml"),
    "llama_cpp": llama_cpp,
    "llama_cpp_q8": partial(llama_cpp, file="model-q8.gguf"),
}


def main() -> None:
    """Serve until a signal ends the process."""
    engine, folder, threads, port = sys.argv[1:]
    if threads == "cuda":
        encode = sentence_transformers_cuda(folder)
    else:
        encode = ENGINES[engine](folder, int(threads))
    pool = ThreadPoolExecutor(1)

    async def embeddings(request: Request) -> Response:
        sent = orjson.loads(await request.body())
        texts = [sent["input"]] if isinstance(sent["input"], str) else sent["input"]
        vectors = await asyncio.get_running_loop().run_in_executor(pool, encode, texts)
        if sent.get("encoding_format") == "base64":
            rows = [base64.b64encode(row.tobytes()).decode() for row in vectors]
        else:
            rows = list(vectors)
        data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
        answer = {"object": "list", "data": data, "model": sent.get("model")}
        return Response(
            orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json"
        )

    app = Starlette(routes=[Route("/v1/embeddings", embeddings, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
