"""A checkpoint's files as somebody else made them: of other kinds, too large, no files at all."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from embedsvc import bounds
from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.files import Files
from tests.support.checkpoints import write_bert, write_json
from tests.support.loading import load, refused
from tests.support.project import ROOT

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 90868376\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>401</title></head></html>"


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # the name of a socket must be short


SPECIAL: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "is a named pipe"),
    "folder": (Path.mkdir, "is a folder"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    "socket": (make_socket, "is a socket"),
    "loop": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
}
READ = (
    "config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json",
    "config_sentence_transformers.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "model.safetensors",
)  # fmt: skip


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", READ)
def test_only_regular_files_are_opened(tmp_path: Path, name: str, kind: str) -> None:
    """Nothing else is, for reading it could last for ever."""
    file = write_bert(tmp_path) / name
    file.unlink(missing_ok=True)
    make, said = SPECIAL[kind]
    make(file)
    assert f"{file}: {said}" in refused(tmp_path)


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    """A snapshot in the hub's cache is made of them."""
    expected = load(write_bert(tmp_path / "blobs"))
    for file in (tmp_path / "blobs").rglob("*.*"):
        link = tmp_path / "snapshot" / file.relative_to(tmp_path / "blobs")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    assert np.array_equal(load(tmp_path / "snapshot"), expected)


@pytest.mark.parametrize("name", [name for name in READ if name != "model.safetensors"])
def test_a_file_larger_than_its_kind_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_bert(tmp_path)
    file = tmp_path / name
    if not file.exists():
        write_json(file, {})
    most = bounds.TOKENIZER_FILE if name == "tokenizer.json" else bounds.CHECKPOINT_JSON
    os.truncate(file, most + 1)  # which takes no room on the disk
    assert f"{file}: is larger than {most >> 20} MiB" in refused(tmp_path)


def test_a_file_may_be_as_large_as_its_kind(tmp_path: Path) -> None:
    text = json.dumps({"filler": ""})
    (tmp_path / "config.json").write_text(
        text.replace('""', f'"{"x" * (bounds.CHECKPOINT_JSON - len(text))}"')
    )
    assert len(Files("x", tmp_path).read("config.json")["filler"]) > 4_000_000


@pytest.mark.parametrize("name", [name for name in READ if name.endswith("json")])
@pytest.mark.parametrize("bracket", ["[", '{"a":'])
def test_json_that_is_nested_deeply_is_refused(tmp_path: Path, name: str, bracket: str) -> None:
    write_bert(tmp_path)
    (tmp_path / name).write_text(bracket * 100_000)
    assert f"{tmp_path / name}: " in refused(tmp_path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = write_bert(tmp_path) / "config.json"
    expected = load(tmp_path)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert np.array_equal(load(tmp_path), expected)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (POINTER, "is a Git LFS pointer in place of the file: run `git lfs pull`"),
        (PAGE, "is a web page in place of the file: download it again"),
        (b"Entry not found", "is an error message in place of the file"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "is a GGUF file, which llama.cpp reads"),
        (b"PK\x03\x04\0\0\x08\x08\0\0", "is a zip archive, as PyTorch's own files are: name it"),
        (b"\x80\x02}q\0ccollections", "is a pickle, as PyTorch's files before 1.6 are"),
        (b"\x1f\x8b\x08\0\xe4\x5a\x66\x68\0\3", "is compressed with gzip"),
        (b"", "is empty: download it again"),
        ("{}".encode("utf-16"), "UTF-16"),
    ],
)
def test_a_file_of_another_kind_is_said_for_what_it_is(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    write_bert(tmp_path)
    (tmp_path / name).write_bytes(content)
    found = refused(tmp_path)
    assert f"{tmp_path / name}: " in found
    assert said in found


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pytorch_model-00001-of-00002.bin", "there are shards, without the pytorch_model.bin.ind"),
        ("model.Q8_0.gguf", "model.Q8_0.gguf is there, which llama.cpp reads"),
        ("onnx/model.onnx", "a folder of ONNX files is there"),
        ("tf_model.h5", "tf_model.h5 is there, but only safetensors"),
        ("adapter_config.json", "adapter_config.json: Object missing required field `peft_type`"),
        ("model-00001-of-00002.safetensors", "there are shards, without the model.safetensors.in"),
    ],
)
@pytest.mark.parametrize("with_config", [True, False])
def test_what_is_there_in_place_of_weights_is_named(
    tmp_path: Path, name: str, said: str, with_config: bool
) -> None:
    write_bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"{}")
    if not with_config:
        (tmp_path / "config.json").unlink()
    assert said in refused(tmp_path)


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": {"a": 1}}, []])
def test_an_index_without_shards_is_refused_by_name(tmp_path: Path, index: object) -> None:
    file = write_bert(tmp_path) / "model.safetensors"
    file.unlink()
    write_json(tmp_path / "model.safetensors.index.json", index)
    assert f"{tmp_path / 'model.safetensors.index.json'}: " in refused(tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "a\0b", "x" * 300, "/etc/passwd"])
def test_an_index_names_only_files_beside_it(tmp_path: Path, name: str) -> None:
    (write_bert(tmp_path) / "model.safetensors").unlink()
    index = {"weight_map": {"embeddings.word_embeddings.weight": name}}
    write_json(tmp_path / "model.safetensors.index.json", index)
    assert "passwd: No such file" in refused(tmp_path) if "pass" in name else refused(tmp_path)


def cached(folder: Path, *commits: str) -> Path:
    repository = folder / "models--org--name"
    for commit in commits:
        write_bert(repository / "snapshots" / commit)
    return repository


def test_a_repository_in_the_hubs_cache_is_taken(tmp_path: Path) -> None:
    repository = cached(tmp_path, "a" * 40)
    snapshot = repository / "snapshots" / ("a" * 40)
    assert open_checkpoint(Card(id="x", path=repository)).root == snapshot


def test_of_several_commits_the_main_branch_is_taken(tmp_path: Path) -> None:
    repository = cached(tmp_path, "a" * 40, "b" * 40)
    assert f"{repository}: is a repository of the hub's cache with 2 commits" in refused(repository)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("b" * 40 + "\n")
    snapshot = repository / "snapshots" / ("b" * 40)
    assert open_checkpoint(Card(id="x", path=repository)).root == snapshot


@pytest.mark.parametrize("named", ["../../elsewhere", "", "/etc", "c" * 40, "\xff\0"])
def test_a_branch_leads_nowhere_else(tmp_path: Path, named: str) -> None:
    repository = cached(tmp_path, "a" * 40, "b" * 40)
    write_bert(tmp_path / "elsewhere")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(named)
    assert "with 2 commits" in refused(repository)


def test_a_name_that_needs_no_weights_is_not_opened(tmp_path: Path) -> None:
    """Files that nothing reads may be what they like."""
    expected = load(write_bert(tmp_path))
    os.mkfifo(tmp_path / "README.md")
    save_file({"x": np.zeros(2, "f4")}, tmp_path / "other.safetensors")
    assert np.array_equal(load(tmp_path), expected)


def test_the_packages_model_is_within_all_bounds() -> None:
    """The largest files known are far below; the default model's are there to be looked at."""
    from embedsvc.catalog.cards_file import read_cards

    checkpoint = open_checkpoint(read_cards(ROOT / "models.toml").by_id["all-MiniLM-L6-v2"])
    assert (checkpoint.folder / "tokenizer.json").stat().st_size * 8 < bounds.TOKENIZER_FILE
