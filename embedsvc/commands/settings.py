"""The server's settings as options of the command line: of `serve`, `service install`, `doctor`."""

import argparse
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from embedsvc.settings import Settings, option
from embedsvc.wording.field_docs import field_docs
from embedsvc.wording.quantities import Bytes, Seconds, write_bytes

NOT_OPTIONS = ("api_keys",)
"""Settings that other users of the machine could read on the command line."""
METAVARS: dict[Any, str] = {
    Bytes: "SIZE",
    Seconds: "TIME",
    int: "N",
    Path: "PATH",
    str: "TEXT",
    tuple[str, ...]: "LIST",
}
"""By a setting's type, what stands for its value in the help."""


OPTIONS = tuple(field for field in Settings.__struct_fields__ if field not in NOT_OPTIONS)
"""The settings that are options of the command line."""


def add_settings(add: Callable[..., argparse.Action], names: Iterable[str] = OPTIONS) -> None:
    """Add an option for each of the settings. `add` is `add_argument` of a parser or of a group."""
    for name in names:
        kind, text = _fields()[name].type, setting_help(name)
        if kind is bool:
            add(option(name), action="store_true", default=None, help=text)
            continue
        choices = _choices(kind)
        metavar = "CHOICE" if choices else METAVARS[_plain(kind)]
        action = add(option(name), metavar=metavar, help=text)
        # What a shell may complete. argparse does not refuse other values: `read_settings` does,
        # in the same words whether a value came from an option or from a variable.
        vars(action)["completes"] = choices


def setting_help(name: str) -> str:
    """The help of a setting's option, made of what `Settings` says below the field.

    >>> setting_help("port")
    'the port to listen on, 0 for any that is free; default: 8000'
    >>> setting_help("log_format")
    'auto, human, json: how the log is written; default: auto'
    >>> setting_help("max_memory")
    "how much memory the weights of loaded models may take; default: 0.7 of the device's memory"
    """
    field = _fields()[name]
    text_below = field_docs(Settings)[name].replace("`", "").removesuffix(".")
    described, _, default = text_below.partition(" Default: ")
    text = described.partition(". ")[0].removesuffix(".")
    text = f"{text[0].lower()}{text[1:]}"
    if choices := _choices(field.type):
        text = f"{', '.join(choices)}: {text}"
    if field.type is bool:
        return text
    return f"{text}; default: {default or _written(field)}"


@cache
def _fields() -> dict[str, msgspec.structs.FieldInfo]:
    return {field.name: field for field in msgspec.structs.fields(Settings)}


def _plain(kind: Any) -> Any:
    """A field's type, without None."""
    return get_args(kind)[0] if type(None) in get_args(kind) else kind


def _choices(kind: Any) -> tuple[str, ...]:
    """The values that a field may have, where these are a closed set."""
    plain = _plain(kind)
    return get_args(plain) if get_origin(plain) is Literal else ()


def _written(field: msgspec.structs.FieldInfo) -> str:
    """A field's default as the option takes it."""
    if field.default in (None, ()):
        return "none"
    if field.type == Bytes:
        return write_bytes(field.default)
    return f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
