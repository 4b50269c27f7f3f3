"""The server's settings as options of the command line: of `serve`, `service install`, `doctor`."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from embedsvc.settings import Settings, option
from embedsvc.wording.quantities import Bytes, Seconds, write_bytes

NOT_OPTIONS = ("api_keys",)
"""What other users of the machine could read on the command line."""
HELP = {
    "host": "address to listen on",
    "port": "port to listen on, 0 for any",
    "models": "cards file; default: ./models.toml, the user's, the packaged one",
    "backend": "what computes, auto being mlx where there is a GPU",
    "cores": "cores to compute on, on a CPU; default: all",
    "max_batch_tokens": "tokens in one forward pass; default: the backend's own figure",
    "api_keys_file": "file of keys, one a line (or EMBEDSVC_API_KEYS=key,key); default: none",
    "insecure": "listen beyond this machine although there are no keys",
    "allowed_hosts": "names, beside this machine's, to answer to without keys; default: none",
    "cors_origins": "origins whose pages may call, * for all; default: those hosts, with keys all",
    "max_memory": "what loaded models may take, as 8GB; default: 0.7 of the device's memory",
    "keep_alive": "how long unused models stay loaded, as 10m; -1 is for ever",
    "load_wait_seconds": "how long a request waits for its model to load",
    "allow_ad_hoc": "let clients load models that have no card",
    "truncate": "what becomes of texts that are too long; default: as the API spoken has it",
    "max_inputs": "inputs of one request",
    "max_request_tokens": "tokens of one request",
    "max_body_bytes": "size of one request",
    "max_waiting_tokens": "tokens that may wait before clients are sent away",
    "cache_bytes": "memory for each model's finished vectors, 0 for none",
    "cache_folder": "where vectors are kept across restarts; default: nowhere",
    "cache_folder_bytes": "size of each model's file there",
    "log_file": "where to log; default: standard output and error",
    "log_level": "the least that is logged",
    "log_format": "how, auto being human on a terminal, else json",
    "uds": "unix socket to listen at, instead of an address; default: none",
    "tls_cert": "file of the certificate to speak TLS with; default: none, and no TLS",
    "tls_key": "file of its key; default: the same file",
    "max_connections": "clients that may be connected",
    "max_head_bytes": "size of one request's line and headers",
    "read_seconds": "how long a client may take over a head, or keep others waiting",
    "drain_seconds": "how long to take requests, not being ready, before stopping",
    "hang_seconds": "how long overdue a pass may be before the server ends itself",
    "otlp_endpoint": "OpenTelemetry collector to send traces to; default: none",
    "shutdown_seconds": "how long to wait for requests in flight when stopping",
}
"""Of each option, in a few words, with the default where that is no value; see `Settings`."""
METAVARS: dict[Any, str] = {
    Bytes: "SIZE",
    Seconds: "TIME",
    int: "N",
    Path: "PATH",
    str: "TEXT",
    tuple[str, ...]: "LIST",
}


def add_settings(add: Callable[..., argparse.Action], names: Iterable[str] = HELP) -> None:
    """An option for each of the settings, by `add_argument` of a parser or of a group."""
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    for name in names:
        kind, default, text = fields[name].type, fields[name].default, HELP[name]
        if kind is bool:
            add(option(name), action="store_true", default=None, help=text)
            continue
        if type(None) in get_args(kind):
            kind = get_args(kind)[0]
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        if choices:
            text = f"{', '.join(choices)}: {text}"
        if "default: " not in text:
            text += f"; default: {_written(kind, default)}"
        metavar = "CHOICE" if choices else METAVARS[kind]
        action = add(option(name), metavar=metavar, help=text)
        # What a shell may complete; a wrong one is refused as a setting, by whatever name it came.
        vars(action)["completes"] = choices


def _written(kind: Any, default: Any) -> str:
    if kind == Bytes:
        return write_bytes(default)
    return f"{default:g}" if isinstance(default, float) else str(default)
