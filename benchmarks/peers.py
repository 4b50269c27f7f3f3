"""The servers that are compared: where each comes from, and how it is started. Data alone."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.model import Precision

THREADS = str(os.cpu_count() or 1)
HTTP = ("starlette==1.10.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", "orjson")
WRAPPER = ("{python}", "{here}/wrapper.py")
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HOME": "{home}/huggingface",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": THREADS,
}


@dataclass(frozen=True)
class Peer:
    """A server. Names in braces are keys of `setup.places`."""

    name: str
    about: str
    """What it runs on and how it is configured, for the report."""
    command: tuple[str, ...]
    environment: str = ""
    """The name of its virtual environment, which peers may share."""
    requirements: tuple[str, ...] = ()
    no_deps: tuple[str, ...] = ()
    """Packages to install without their dependencies, which cannot be installed here."""
    build_env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables for packages that have to be compiled."""
    model: str = "{name}"
    """The model's name in requests."""
    precision: Precision = "float32"
    """Servers are compared with embedsvc in the same one."""
    path: str = "/v1/embeddings"
    needs: tuple[str, ...] = ()
    """The kinds of files that have to be made from the model, keys of `EXPORTS`."""
    env: Mapping[str, str] = field(default_factory=lambda: QUIET)
    cwd: str = "{logs}"
    slow: bool = False
    """Whether it is measured in the first round only."""
    gpu: bool = False
    """Whether it needs an NVIDIA GPU. It is then measured only if it is named."""


SENTENCE_TRANSFORMERS = (
    *("torch==2.13.0", "sentence-transformers==6.2.0", "onnx", "onnxscript", *HTTP),
)
INFINITY = (
    *("{venv}/bin/infinity_emb", "v2", "--host", "127.0.0.1", "--port", "{port}"),
    *("--url-prefix", "/v1", "--served-model-name", "{name}"),
    *("--lengths-via-tokenize", "--log-level", "warning"),
)
ON_CPU = ("--device", "cpu", "--dtype", "float32")
ON_CUDA = ("--device", "cuda", "--dtype", "float16", "--batch-size", "256")
INFINITY_TORCH = ("--model-id", "{model}", "--engine", "torch", "--no-bettertransformer")
INFINITY_ONNX = ("--model-id", ".", "--engine", "optimum", "--pooling-method", "mean")
INFINITY_REQUIREMENTS = (
    "infinity-emb[optimum,server,torch]==0.0.78",
    "torch==2.13.0",
    "optimum[onnxruntime]==1.26.1",
    "transformers==4.48.3",  # the last version that BetterTransformer works with
    "pyarrow==19.0.1",  # for NumPy 1, which infinity needs
)
MLX = (
    *("mlx[cpu]==0.31.2; sys_platform == 'linux'", "mlx==0.31.2; sys_platform == 'darwin'"),
    *("mlx-lm==0.31.3", "transformers>=5.5,<5.9", "fastapi<0.130", "uvicorn>=0.35,<0.40"),
    *("rich", "pillow", "aiohttp", "requests"),
)
MLX_EMBEDDINGS = ("mlx-embeddings==0.1.0", "mlx-vlm==0.4.4")
MLX_OPENAI = (
    *("loguru", "click", "dill", "openai>=2.21,<3", "openai-harmony<0.1", "PyYAML", "xxhash"),
    *("python-multipart", "json_repair", "aiofiles", "httpx"),
)
"""Without the dependencies for images and speech, which cannot be installed together."""
EMBEDSVC = (*("{project}", "-m", "embedsvc", "serve", "--port", "{port}", "--models", "{cards}"),)
ONNXRUNTIME = ("onnxruntime==1.32.0", "tokenizers", "onnx==1.23.2", *HTTP)
OPENVINO = ("openvino==2026.4.1", "tokenizers", *HTTP)
LLAMA_CPP = ("llama-cpp-python==0.3.36", "gguf==0.19.0", "safetensors", "tokenizers", *HTTP)
NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16" if platform.machine() == "x86_64" else ""
"""Built by GCC 12 for AMX, llama.cpp ends with SIGILL at its first tile, in Q8_0."""
LLAMA_CPP_BUILD = {
    "CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF",
    "CFLAGS": NO_AMX,
    "CXXFLAGS": NO_AMX,
}
OMNI = """
import sys, fastapi, uvicorn
from mlx_omni_server.embeddings.router import router
app = fastapi.FastAPI()
app.include_router(router)
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""
PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "embedsvc",
            "this project, as it comes",
            EMBEDSVC,
            env={},
        ),
        Peer(
            "embedsvc-bfloat16",
            "this project, with --dtype bfloat16",
            (*EMBEDSVC, "--dtype", "bfloat16"),
            precision="bfloat16",
            env={},
        ),
        Peer(
            "embedsvc-int8",
            "this project, with --dtype int8",
            (*EMBEDSVC, "--dtype", "int8"),
            precision="int8",
            env={},
        ),
        Peer(
            "sentence-transformers",
            f"torch, float32, {THREADS} threads, behind a 30-line server",
            (*WRAPPER, "sentence_transformers", "{model}", THREADS, "{port}"),
            "sentence-transformers",
            SENTENCE_TRANSFORMERS,
        ),
        Peer(
            "sentence-transformers-cuda",
            "torch, float16, on an NVIDIA GPU, behind the same server",
            (*WRAPPER, "sentence_transformers", "{model}", "cuda", "{port}"),
            "sentence-transformers",
            SENTENCE_TRANSFORMERS,
            gpu=True,
        ),
        Peer(
            "onnxruntime",
            f"ONNX Runtime, float32, {THREADS} threads, behind the same server",
            (*WRAPPER, "onnxruntime", "{model}", THREADS, "{port}"),
            "onnxruntime",
            ONNXRUNTIME,
            needs=("onnx",),
        ),
        Peer(
            "onnxruntime-int8",
            f"ONNX Runtime, int8: weights by channel, inputs by batch, {THREADS} threads",
            (*WRAPPER, "onnxruntime_int8", "{model}", THREADS, "{port}"),
            "onnxruntime",
            ONNXRUNTIME,
            precision="int8",
            needs=("onnx", "onnx-int8"),
        ),
        Peer(
            "fastembed",
            f"ONNX Runtime, float32, {THREADS} threads, behind the same server",
            (*WRAPPER, "fastembed", "{model}", THREADS, "{port}"),
            "fastembed",
            ("fastembed==0.9.1", *HTTP),
            needs=("onnx",),
        ),
        Peer(
            "fastembed-int8",
            f"ONNX Runtime, int8 as its own quantised models are, {THREADS} threads",
            (*WRAPPER, "fastembed_int8", "{model}", THREADS, "{port}"),
            "fastembed",
            ("fastembed==0.9.1", *HTTP),
            precision="int8",
            needs=("onnx", "onnx-int8"),
        ),
        Peer(
            "openvino",
            f"OpenVINO, float32, {THREADS} threads, latency hint, behind the same server",
            (*WRAPPER, "openvino", "{model}", THREADS, "{port}"),
            "openvino",
            OPENVINO,
            needs=("onnx",),
        ),
        Peer(
            "openvino-bfloat16",
            f"OpenVINO, bfloat16, {THREADS} threads, latency hint",
            (*WRAPPER, "openvino_bfloat16", "{model}", THREADS, "{port}"),
            "openvino",
            OPENVINO,
            precision="bfloat16",
            needs=("onnx",),
        ),
        Peer(
            "openvino-int8",
            f"OpenVINO, int8 by NNCF, calibrated, {THREADS} threads, latency hint",
            (*WRAPPER, "openvino_int8", "{model}", THREADS, "{port}"),
            "openvino",
            OPENVINO,
            precision="int8",
            needs=("onnx", "openvino-int8"),
        ),
        Peer(
            "infinity-torch",
            f"infinity on torch, float32, {THREADS} threads",
            (*INFINITY, *ON_CPU, *INFINITY_TORCH),
            "infinity",
            INFINITY_REQUIREMENTS,
            env=QUIET | {"INFINITY_ANONYMOUS_USAGE_STATS": "0"},
        ),
        Peer(
            "infinity-cuda",
            "infinity on torch, float16, on an NVIDIA GPU",
            (*INFINITY, *ON_CUDA, *INFINITY_TORCH),
            "infinity",
            INFINITY_REQUIREMENTS,
            env=QUIET | {"INFINITY_ANONYMOUS_USAGE_STATS": "0"},
            gpu=True,
        ),
        Peer(
            "infinity-optimum",
            f"infinity on ONNX Runtime, float32, {THREADS} threads",
            (*INFINITY, *ON_CPU, *INFINITY_ONNX),
            "infinity",
            INFINITY_REQUIREMENTS,
            cwd="{model}",  # it looks for ONNX files in its working directory
            needs=("onnx",),
            env=QUIET | {"INFINITY_ANONYMOUS_USAGE_STATS": "0"},
        ),
        Peer(
            "mlx-omni-server",
            "MLX on the processor, float32; its embeddings routes alone",
            ("{python}", "-c", OMNI, "{port}"),
            "mlx-omni-server",
            (*MLX, "tiktoken"),
            no_deps=(*MLX_EMBEDDINGS, "mlx-omni-server==0.5.3"),
            model="{model}",
            slow=True,
        ),
        Peer(
            "mlx-openai-server",
            "MLX on the processor, float32",
            (
                *("{venv}/bin/mlx-openai-server", "launch", "--model-type", "embeddings"),
                *("--model-path", "{model}", "--host", "127.0.0.1", "--port", "{port}"),
            ),
            "mlx-openai-server",
            (*MLX, *MLX_OPENAI),
            no_deps=(*MLX_EMBEDDINGS, "mlx-openai-server==1.8.1"),
            model="{model}",
            slow=True,
        ),
        Peer(
            "llama-cpp",
            f"llama.cpp, float32, {THREADS} threads, behind the same server",
            (*WRAPPER, "llama_cpp", "{model}", THREADS, "{port}"),
            "llama-cpp",
            LLAMA_CPP,
            build_env=LLAMA_CPP_BUILD,
            needs=("gguf",),
        ),
        Peer(
            "llama-cpp-q8",
            f"llama.cpp, Q8_0, {THREADS} threads, behind the same server",
            (*WRAPPER, "llama_cpp_q8", "{model}", THREADS, "{port}"),
            "llama-cpp",
            LLAMA_CPP,
            build_env=LLAMA_CPP_BUILD,
            precision="int8",
            needs=("gguf-q8",),
        ),
    )
}
NNCF = Peer("nncf", "makes a model of int8 for OpenVINO", (), "nncf", (*OPENVINO, "nncf==3.4.0"))
MAKERS = PEERS | {"nncf": NNCF}
EXPORTS = {
    "onnx": ("model.onnx", "sentence-transformers"),
    "onnx-int8": ("model-int8.onnx", "onnxruntime"),
    "openvino-int8": ("openvino-int8", "nncf"),
    "gguf": ("model-f32.gguf", "llama-cpp"),
    "gguf-q8": ("model-q8.gguf", "llama-cpp"),
    "reference": ("reference.npy", "sentence-transformers"),
}
"""For each kind of file: its path in the model's folder, and which of `MAKERS` has the environment
that can make it."""
