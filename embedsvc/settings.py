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
"""The least values of numbers; of the others 1."""
MOST = {"port": 65535, "cores": 1024}
LogLevel = Literal["debug", "info", "warning", "error"]
KEYS = frozenset({"api_keys", "api_keys_file"})
"""Settings whose variables hold something where they are set: left empty by mistake, as by a shell
that lacks another variable, they would open a server to everybody."""
BackendChoice = Literal["auto", "mlx", "native", "numpy"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one server. `EMBEDSVC_PORT` sets `port`, and so on for every field."""

    host: str = "localhost"
    """The address to listen on; `localhost` is both 127.0.0.1 and ::1; beyond this machine only
    with keys."""
    port: int = 8000
    """The port to listen on; 0: any that is free."""
    models: Path | None = None
    """The cards file; left out, `./models.toml`, `~/.config/embedsvc/models.toml`, or the one
    inside the package."""
    backend: BackendChoice = "auto"
    """What computes: `mlx`, `native` (kernels in C), `numpy`; `auto` is MLX where there is a GPU,
    else the kernels, or NumPy where they were not built."""
    cores: int | None = None
    """Cores to compute on, where that is a CPU; left out, all that the process may use."""
    max_batch_tokens: int | None = None
    """Tokens in one forward pass; left out, the backend's own figure."""
    api_keys: tuple[str, ...] = ()
    """Keys of which a request must bring one; none: no request needs any. Not an option of the
    command line, where other users of the machine could read it."""
    api_keys_file: Path | None = None
    """More of them: one on each line, less those that begin with #."""
    insecure: bool = False
    """Whether the server may listen beyond this machine without keys."""
    allowed_hosts: tuple[str, ...] = ()
    """Names beside this machine's that a server without keys answers to, and whose pages may call
    it; "*" is any."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call; left out, those of `allowed_hosts`, or with keys all."""
    max_memory: Bytes | None = None
    """What the weights of loaded models may take; left out, 0.7 of the device's memory."""
    keep_alive: Seconds = -1.0
    """How long without requests until a model is unloaded, where its card does not say: 0 at once,
    -1 never."""
    load_wait_seconds: Seconds = 60.0
    """How long a request waits for its model to load before it is answered 503."""
    allow_ad_hoc: bool = False
    """Whether clients may load models without a card: repositories, folders by the cards file."""
    truncate: Literal["error", "end", "start", "chunk"] | None = None
    """What becomes of an input that is too long, where neither the request nor the model's card
    says: it is refused, cut, or split into parts whose vectors are averaged; left out, what the
    servers do whose API is spoken, which is `chunk` for OpenAI's."""
    max_inputs: int = 2048
    """Inputs of one request."""
    max_request_tokens: int = 300_000
    """Tokens of all inputs of one request."""
    max_body_bytes: Bytes = 16 << 20
    """The size of one request."""
    max_waiting_tokens: int = 1_000_000
    """Tokens that may wait in one model's line before requests are answered 429."""
    cache_bytes: Bytes = 64 << 20
    """Memory for each model's finished vectors; 0: none."""
    cache_folder: Path | None = None
    """Where vectors are kept across restarts; left out, nowhere."""
    cache_folder_bytes: Bytes = 1 << 30
    """The size of each model's file in `cache_folder`."""
    log_file: Path | None = None
    """Where the server logs; it may be moved away at any time. Left out, to where it prints."""
    log_level: LogLevel = "info"
    """Of what is logged, the least that is: requests are `info`, health checks `debug`."""
    log_format: Literal["auto", "human", "json"] = "auto"
    """`auto`: for people on a terminal, else JSON."""
    uds: Path | None = None
    """The path of a unix socket to listen at, instead of an address."""
    tls_cert: Path | None = None
    """A certificate, and those that vouch for it, in PEM; with it the server speaks TLS alone."""
    tls_key: Path | None = None
    """Its key, where it is not in the same file."""
    max_connections: int = 1000
    """Clients that may be connected; those beyond are answered 503."""
    max_head_bytes: Bytes = 32 << 10
    """The size of a request's line and headers."""
    read_seconds: Seconds = 30.0
    """How long a client may take over a request's head, or keep the server waiting for the rest of
    a body, or for its reading an answer."""
    drain_seconds: Seconds = 0.0
    """How long a server that is told to stop takes requests, `/ready` being red, before it does."""
    hang_seconds: Seconds = 60.0
    """How long overdue something may be before it hangs, and the server ends to be restarted."""
    otlp_endpoint: str | None = None
    """The URL of an OpenTelemetry collector, to which a trace of each request is sent, as OTLP's
    JSON over HTTP; left out, nothing is sent anywhere."""
    shutdown_seconds: Seconds = 30.0
    """How long a stopping server waits for requests in flight."""


def read_settings(given: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Settings from what the command line gave (None: not given), else from the environment.

    Raises `CardsError` that names the option or variable and what it must be.
    """
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        value, source = given.get(field.name), option(field.name)
        if value is None:
            value, source = environ.get(variable(field.name)), variable(field.name)
            if not value and field.name not in KEYS:
                continue  # set to nothing is not set
        if value is None:
            continue
        try:
            values[field.name] = _read(field.name, field.type, str(value))
        except ValueError as error:
            raise CardsError(f"{source}={value}: {error}") from None
    return Settings(**values)


def option(name: str) -> str:
    """The option of the command line that sets it."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """The environment variable that sets it."""
    return f"EMBEDSVC_{name.upper()}"


def _read(name: str, kind: Any, text: str) -> Any:
    """A setting's value, from a text. Raises `ValueError` that says what it must be."""
    if name == "keep_alive":
        return read_keep_alive(text)
    if type(None) in get_args(kind):  # which it is where it is not given
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
"""By a setting's type, what reads it."""
