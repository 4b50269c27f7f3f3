"""Says what a file or a folder is that is not what its name says, and what to do about it."""

from fnmatch import fnmatch
from pathlib import Path

_AGAIN = "in place of the file: download it again (embedsvc pull does it)"
_ONLY = "only safetensors files and torch's are read"
BEGINNINGS = {
    b"version https://git-lfs": "is a Git LFS pointer in place of the file: run `git lfs pull` "
    "where it was cloned, or download the file itself",
    b"<!doctype html": f"is a web page {_AGAIN}",
    b"<html": f"is a web page {_AGAIN}",
    b"<?xml": f"is XML {_AGAIN}",
    b"entry not found": f"is an error message {_AGAIN}",
    b"gguf": f"is a GGUF file, which llama.cpp reads; {_ONLY}",
    b"pk\x03\x04": "is a zip archive, as PyTorch's own files are: name it pytorch_model.bin",
    b"\x80": "is a pickle, as PyTorch's files before 1.6 are: convert it to safetensors",
    b"\x89hdf": f"is an HDF5 file, as TensorFlow's are; {_ONLY}",
    b"\x1f\x8b": "is compressed with gzip: unpack it",
    b"\xff\xfe": "is text in UTF-16, and must be in UTF-8",
    b"\xfe\xff": "is text in UTF-16, and must be in UTF-8",
}
"""Beginnings of files of other kinds, letters in lower case, and what is said of such a file."""
_OTHER = "but only safetensors files and pytorch_model.bin are opened"
CONTENTS = {
    "model-*-of-*.safetensors": "there are shards, without the model.safetensors.index.json that "
    "says what is in them: download that too",
    "*.gguf": "{name} is there, which llama.cpp reads, " + _OTHER,
    "pytorch_model-*-of-*.bin": "there are shards, without the pytorch_model.bin.index.json that "
    "says what is in them: download that too",
    "*.pt": "{name} is there, " + _OTHER,
    "weights.npz": "{name} is there, " + _OTHER,
    "tf_model.h5": "{name} is there, " + _OTHER,
    "flax_model.msgpack": "{name} is there, " + _OTHER,
    "*.onnx": "{name} is there, " + _OTHER,
    "onnx": "a folder of ONNX files is there, " + _OTHER,
    "openvino": "a folder of OpenVINO files is there, " + _OTHER,
}
"""Names of what may lie in a folder without weights that can be read, the most telling first, and
what is said of such a folder."""


def kind_of(beginning: bytes) -> str | None:
    """What is to be said of a file that begins so; None if it may be what its name says.

    >>> kind_of(b"<!DOCTYPE html><html>")
    'is a web page in place of the file: download it again (embedsvc pull does it)'
    >>> kind_of(b'{"model_type": "bert"}') is None
    True
    """
    if not beginning:
        return "is empty: download it again (embedsvc pull does it)"
    plain = beginning.lstrip().lower()
    return next((problem for start, problem in BEGINNINGS.items() if plain.startswith(start)), None)


def found_instead(folder: Path) -> str:
    """What lies in a folder instead of weights, as the end of a sentence; empty if that is not
    known."""
    try:
        names = sorted(file.name for file in folder.iterdir())
    except OSError:
        return ""
    for pattern, problem in CONTENTS.items():
        for name in names:
            if fnmatch(name, pattern):
                return f"; {problem.format(name=name)}"
    return ""
