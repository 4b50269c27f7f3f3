"""What an operator may set: on the command line, or as EMBEDSVC_* environment variables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from embedsvc.errors import CardsError

BackendChoice = Literal["auto", "mlx", "native", "numpy"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one server. `EMBEDSVC_PORT` sets `port`, and so on for every field."""

    host: str = "127.0.0.1"
    port: int = 8000
    models: Path | None = None
    backend: BackendChoice = "auto"
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
    max_inputs: int = 2048
    """Inputs of one request."""
    max_request_tokens: int = 300_000
    """Tokens of all inputs of one request."""
    max_body_bytes: int = 64 << 20
    """Bytes of one request."""
    max_waiting_tokens: int = 1_000_000
    """Tokens that may wait in one model's line before requests are answered 429."""
    cache_bytes: int = 64 << 20
    """Memory for each model's finished vectors; 0: none."""
    cache_folder: Path | None = None
    """Where vectors are kept across restarts; left out, nowhere."""
    cache_folder_bytes: int = 1 << 30
    """Of each model's file in `cache_folder`."""
    log_file: Path | None = None
    """Where the server logs; it may be moved away at any time. Left out, to where it prints."""
    shutdown_seconds: float = 30.0
    """How long a stopping server waits for requests in flight."""

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(Settings):
            value: object = getattr(self, field.name)
            least = 0 if field.name in ("port", "cache_bytes") else 1
            if isinstance(value, int | float) and field.type is not bool and value < least:
                raise ValueError(f"{field.name} must be at least {least}, not {value}")
        if self.port > 65535:
            raise ValueError(f"port must be at most 65535, not {self.port}")


def read_settings(given: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """Settings from what the command line gave (None: not given), else from the environment.

    Raises `CardsError` that names the option or variable and what it must be.
    """
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        variable = f"EMBEDSVC_{field.name.upper()}"
        value, source = given.get(field.name), f"--{field.name.replace('_', '-')}"
        if value is None and environ.get(variable):
            value, source = environ[variable], variable
        if value is None:
            continue
        if field.type == tuple[str, ...]:
            values[field.name] = tuple(str(value).replace(",", " ").split())
            continue
        try:
            values[field.name] = msgspec.convert(
                str(value), field.type, strict=False, dec_hook=_path
            )
        except msgspec.ValidationError as error:
            raise CardsError(f"{source}={value}: {error}") from None
    try:
        return Settings(**values)
    except ValueError as error:
        raise CardsError(f"settings: {error}") from None


def _path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value).expanduser()
    raise NotImplementedError(kind)
