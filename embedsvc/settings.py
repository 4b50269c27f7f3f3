"""What an operator may set: on the command line, or as EMBEDSVC_* environment variables."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from embedsvc.errors import CardsError
from embedsvc.system.home import expanded
from embedsvc.wording.quantities import (
    Bytes,
    Seconds,
    read_bytes,
    read_count,
    read_keep_alive,
    read_seconds,
    read_switch,
)

LEAST = {"port": 0, "cache_bytes": 0, "load_wait_seconds": 0, "drain_seconds": 0}
"""The least values of numbers. Those that are not here are at least 1."""
MOST = {"port": 65535, "cores": 1024}
"""The largest values of numbers, where there is such a limit."""
LogLevel = Literal["debug", "info", "warning", "error"]
KEYS = frozenset({"api_keys", "api_keys_file"})
"""Settings whose variables may not be empty. A variable left empty by mistake, as by a shell that
lacks another one, would otherwise open the server to everybody."""
BackendChoice = Literal["auto", "mlx", "native", "numpy"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one server. `EMBEDSVC_PORT` sets `port`, and so on for every field.

    The string below a field goes into the documentation. Its first sentence is also the help of the
    field's option; where the value None needs words, it ends with a sentence `Default: ...`.
    """

    host: str = "localhost"
    """The address to listen on. `localhost` is both 127.0.0.1 and ::1. Other machines can only be
    served with keys."""
    port: int = 8000
    """The port to listen on, 0 for any that is free."""
    models: Path | None = None
    """The cards file. Default: `./models.toml`, else `~/.config/embedsvc/models.toml`, else the one
    inside the package."""
    backend: BackendChoice = "auto"
    """What computes. `native` is kernels in C. `auto` is MLX where there is a GPU, else the
    kernels, or NumPy where they were not built."""
    dtype: Literal["float32", "float16", "bfloat16", "int8"] | None = None
    """The type of numbers to compute with, where a card does not say. `int8` is for CPUs and
    `float16` for GPUs: what has no such numbers takes its default. Default: float32 on a CPU; on a
    GPU float16, or bfloat16 for a model that was trained in it."""
    cores: int | None = None
    """How many cores to compute on, where that is a CPU. Default: all that the process may use."""
    max_batch_tokens: int | None = None
    """How many tokens one forward pass may have. Default: the backend's own figure."""
    api_keys: tuple[str, ...] = ()
    """The keys of which a request must bring one. Without keys no request needs any. This is not an
    option of the command line, where other users of the machine could read it."""
    api_keys_file: Path | None = None
    """A file of further keys, one on each line. Lines that begin with # are left out."""
    insecure: bool = False
    """Whether the server may listen beyond this machine without keys."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names, beside this machine's, that a server without keys answers to. Their pages may
    call it. "*" is any."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the server, or * for all. Default: those of `allowed_hosts`, or
    with keys all."""
    max_memory: Bytes | None = None
    """How much memory the weights of loaded models may take. A quarter of the device's
    memory, of what Metal recommends on a Mac, is kept for passes. Default: 0.7 of the device's
    memory."""
    keep_alive: Seconds = -1.0
    """How long a model stays loaded without requests, -1 for ever, where its card does not say. 0
    unloads it at once."""
    load_wait_seconds: Seconds = 60.0
    """How long a request waits for its model to load before it is answered 503."""
    allow_ad_hoc: bool = False
    """Whether clients may load models without a card. These are repositories, and folders beside
    the cards file."""
    truncate: Literal["error", "end", "start", "chunk"] | None = None
    """What becomes of a text that is too long, where neither the request nor the card says. It is
    refused, cut, or split into parts whose vectors are averaged. Default: as the API that is spoken
    has it, which is `chunk` for OpenAI's."""
    max_inputs: int = 2048
    """How many inputs one request may have."""
    max_request_tokens: int = 300_000
    """How many tokens all inputs of one request may have."""
    max_pair_tokens: int = 1_000_000
    """How many tokens all pairs of a request for scores may have; a query counts in each."""
    max_body_bytes: Bytes = 16 << 20
    """How large the body of one request may be."""
    max_waiting_tokens: int = 1_000_000
    """How many tokens may wait for one model before further requests are answered 429."""
    cache_bytes: Bytes = 64 << 20
    """How much memory each model's finished vectors may take, 0 for none."""
    cache_folder: Path | None = None
    """The folder where vectors are kept across restarts. Default: nowhere."""
    cache_folder_bytes: Bytes = 1 << 30
    """How large each model's file in `cache_folder` may be."""
    log_file: Path | None = None
    """The file to log to. It may be moved away at any time. Default: standard output and error."""
    log_level: LogLevel = "info"
    """The lowest level that is logged. Requests are `info`, health checks are `debug`."""
    log_format: Literal["auto", "human", "json"] = "auto"
    """How the log is written. `auto` is for people on a terminal, else JSON."""
    uds: Path | None = None
    """The path of a unix socket to listen at, instead of an address."""
    tls_cert: Path | None = None
    """A file with a certificate, and those that vouch for it, in PEM. With it the server speaks TLS
    alone."""
    tls_key: Path | None = None
    """The file with the key of the certificate. Default: the same file."""
    max_connections: int = 1000
    """How many clients may be connected. Those beyond are answered 503."""
    max_head_bytes: Bytes = 32 << 10
    """How large a request's line and headers may be."""
    read_seconds: Seconds = 30.0
    """How long a client may take to send a request's head, or keep the server waiting for the rest
    of a body or for its reading an answer."""
    drain_seconds: Seconds = 0.0
    """How long a server that is told to stop still takes requests, with `/ready` red."""
    hang_seconds: Seconds = 60.0
    """How long overdue work may be before the server ends itself, to be started again."""
    otlp_endpoint: str | None = None
    """The URL of an OpenTelemetry collector to send a trace of each request to. They go as OTLP's
    JSON over HTTP. Default: no traces."""
    shutdown_seconds: Seconds = 30.0
    """How long a stopping server waits for requests in flight."""


def read_settings(options: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Settings from the command line's values (None: not given), else from the environment.

    Raises `CardsError` that names the option or variable and what it must be.
    """
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        value, source = options.get(field.name), option(field.name)
        if value is None:
            value, source = environ.get(variable(field.name)), variable(field.name)
            if not value and field.name not in KEYS:
                continue  # an empty variable counts as not set
        if value is None:
            continue
        try:
            values[field.name] = _read(field.name, field.type, str(value))
        except ValueError as error:
            raise CardsError(f"{source}={value}: {error}") from None
    return Settings(**values)


def option(name: str) -> str:
    """The option of the command line that sets a setting.

    >>> option("max_memory")
    '--max-memory'
    """
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """The environment variable that sets a setting.

    >>> variable("max_memory")
    'EMBEDSVC_MAX_MEMORY'
    """
    return f"EMBEDSVC_{name.upper()}"


def _read(name: str, kind: Any, text: str) -> Any:
    """The value of a setting from a text. Raises `ValueError` that says what it must be."""
    if name == "keep_alive":
        return read_keep_alive(text)
    if type(None) in get_args(kind):  # None stands for the default, which no text means
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ValueError(f"must be one of {', '.join(get_args(kind))}")
        return text
    value = READERS[kind](text)
    if isinstance(value, int | float) and kind is not bool:
        least, most = LEAST.get(name, 1), MOST.get(name, value)
        if value < least:
            raise ValueError(f"must be at least {least}")
        if value > most:
            raise ValueError(f"must be at most {most}")
    return value


def _read_path(text: str) -> Path:
    if not text.strip():
        raise ValueError("there is nothing in it")
    try:
        return expanded(Path(text))
    except CardsError:
        raise ValueError("there is no such home") from None


def _read_list(text: str) -> tuple[str, ...]:
    found = tuple(text.replace(",", " ").split())
    if not found:
        raise ValueError("there is nothing in it")
    return found


READERS: dict[Any, Callable[[str], Any]] = {
    Bytes: read_bytes,
    Seconds: read_seconds,
    int: read_count,
    bool: read_switch,
    str: str,
    Path: _read_path,
    tuple[str, ...]: _read_list,
}
"""By a setting's type, the function that reads it from a text."""
