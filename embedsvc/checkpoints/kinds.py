"""What a file or a folder is, where it is not what its name says; and what to do about it."""

from fnmatch import fnmatch
from pathlib import Path

_AGAIN = "in place of the file: download it again (embedsvc pull does it)"
_ONLY = "only safetensors files are read"
BEGINNINGS = {
    b"version https://git-lfs": "is a Git LFS pointer in place of the file: run `git lfs pull` "
    "where it was cloned, or download the file itself",
    b"<!doctype html": f"is a web page {_AGAIN}",
    b"<html": f"is a web page {_AGAIN}",
    b"<?xml": f"is XML {_AGAIN}",
    b"entry not found": f"is an error message {_AGAIN}",
    b"gguf": f"is a GGUF file, which llama.cpp reads; {_ONLY}",
    b"pk\x03\x04": f"is a zip archive, as PyTorch's own files are; {_ONLY}",
    b"\x80": f"is a pickle, as PyTorch's own files are; {_ONLY}",
    b"\x89hdf": f"is an HDF5 file, as TensorFlow's are; {_ONLY}",
    b"\x1f\x8b": "is compressed with gzip: unpack it",
    b"\xff\xfe": "is text in UTF-16, and must be in UTF-8",
    b"\xfe\xff": "is text in UTF-16, and must be in UTF-8",
}
"""How files of other kinds begin, letters in lower case, and what is said of them."""
_OTHER = "but only safetensors files are opened"
CONTENTS = {
    "adapter_config.json": "there is a LoRA adapter alone: merge it into its base model "
    "(peft's `merge_and_unload`)",
    "model-*-of-*.safetensors": "there are shards, without the model.safetensors.index.json that "
    "says what is in them: download that too",
    "*.gguf": "{name} is there, which llama.cpp reads, " + _OTHER,
    "pytorch_model*.bin": "{name} is there, " + _OTHER,
    "*.pt": "{name} is there, " + _OTHER,
    "weights.npz": "{name} is there, " + _OTHER,
    "tf_model.h5": "{name} is there, " + _OTHER,
    "flax_model.msgpack": "{name} is there, " + _OTHER,
    "*.onnx": "{name} is there, " + _OTHER,
    "onnx": "a folder of ONNX files is there, " + _OTHER,
    "openvino": "a folder of OpenVINO files is there, " + _OTHER,
}
"""What may be in a folder in place of weights that are read, most telling first."""


def kind_of(beginning: bytes) -> str | None:
    """What is to be said of a file that begins so, or None of one that may be what it should be."""
    if not beginning:
        return "is empty: download it again (embedsvc pull does it)"
    plain = beginning.lstrip().lower()
    return next((said for start, said in BEGINNINGS.items() if plain.startswith(start)), None)


def found_instead(folder: Path) -> str:
    """What is in a folder that lacks weights, for the end of a sentence; empty if nothing known."""
    try:
        names = sorted(file.name for file in folder.iterdir())
    except OSError:
        return ""
    for pattern, said in CONTENTS.items():
        for name in names:
            if fnmatch(name, pattern):
                return f"; {said.format(name=name)}"
    return ""
