"""Files that torch.save wrote, read without torch; and what is no such file, refused.

`tests/reference/record_torch_files.py` recorded some of torch's own.
"""

import random
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.checkpoint import open_checkpoint
from embedsvc.checkpoints.tensors import Tensors
from embedsvc.checkpoints.torch_file import read_torch_entries
from embedsvc.errors import CheckpointError
from embedsvc.inference.encoder import load_encoder
from embedsvc.inference.ops.numpy import NumpyOps
from tests.support.backends import BACKENDS
from tests.support.checkpoints import write_bert, write_modules
from tests.support.loading import load, refused
from tests.support.tiny import CASES
from tests.support.torch_files import (
    archive,
    as_torch,
    pack,
    parameter,
    state_dict,
    storage,
    tensor,
    torch_file,
)
from tests.support.torch_mutations import mutated

RECORDED = Path(__file__).parent / "reference" / "torch_files"
WHOLE = np.arange(24).reshape(4, 6)


def write(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "pytorch_model.bin").write_bytes(content)
    return folder


def read(folder: Path) -> dict[str, np.ndarray]:
    tensors = Tensors("x", folder)
    return {name: tensors.take_stored(name) for name in tensors.entries()}


def refusal(folder: Path, content: bytes) -> str:
    with pytest.raises(CheckpointError) as caught:
        Tensors("x", write(folder, content))
    assert str(folder / "pytorch_model.bin") in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["protocol2", "protocol3", "protocol4", "protocol5", "parameters"])
def test_what_torch_wrote_is_read(tmp_path: Path, name: str) -> None:
    found = read(write(tmp_path, (RECORDED / f"{name}.bin").read_bytes()))
    assert found.keys() == {"weight", "bias"}
    assert np.array_equal(found["weight"], np.arange(12).reshape(3, 4))
    assert np.array_equal(found["bias"], np.arange(3))


def test_views_and_all_types_of_torch_are_read(tmp_path: Path) -> None:
    found = read(write(tmp_path, (RECORDED / "views.bin").read_bytes()))
    expected = dict.fromkeys(("F32", "F64", "F16", "BF16", "I64", "I32", "U8"), WHOLE)
    expected |= {"turned": WHOLE.T, "some": WHOLE[1:3, ::2], "row": WHOLE[2]}
    expected |= {"number": WHOLE[3, 5], "nothing": np.zeros((0, 3))}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == np.shape(value), name
        assert np.array_equal(found[name], value), name


def test_rows_of_a_view_are_read_alone(tmp_path: Path) -> None:
    write(tmp_path, (RECORDED / "views.bin").read_bytes())
    read_bytes: list[int] = []
    tensors = Tensors("x", tmp_path, read_bytes.append)
    assert np.array_equal(tensors.rows("turned", [4, 1], 6, 4), WHOLE.T[[4, 1]])
    assert np.array_equal(tensors.rows("F32", [3], 4, 6), WHOLE[[3]])
    assert read_bytes == [16, 16, 24]


@pytest.mark.parametrize(
    ("name", "said", "load"),
    [
        ("legacy", "is in the format of torch before 1.6", "torch.load('pytorch_model.bin', 'cpu'"),
        ("script", "is a TorchScript program", "torch.jit.load('pytorch_model.bin', 'cpu').state_"),
    ],
)
def test_torchs_other_formats_are_refused_with_what_to_do(
    tmp_path: Path, name: str, said: str, load: str
) -> None:
    message = refusal(tmp_path, (RECORDED / f"{name}.bin").read_bytes())
    assert said in message
    assert load in message
    assert "s.save_file(" in message


def test_torchs_oldest_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "old.tar", "w") as tar:
        tar.add(RECORDED / "legacy.bin", "storages")
    message = refusal(tmp_path, (tmp_path / "old.tar").read_bytes())
    assert "is in the format of torch before 1.6; convert it" in message


@pytest.mark.parametrize("name", BACKENDS)
def test_a_model_of_torch_has_the_vectors_of_its_twin(tmp_path: Path, name: str) -> None:
    write_bert(tmp_path)
    texts = [np.array([2, 5, 9, 3], np.int32), np.array([2, 30, 3], np.int32)]
    ops = BACKENDS[name]()
    twin, found = (
        load_encoder(ops, open_checkpoint(Card(id="x", path=folder))).encode(texts)
        for folder in (tmp_path, as_torch(write_bert(tmp_path / "torch")))
    )
    assert np.array_equal(twin, found)


@pytest.mark.parametrize("name", CASES)
def test_every_architecture_loads_from_torchs_files(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    twin = load_encoder(
        NumpyOps(cores=1), open_checkpoint(Card(id="x", path=case.write(tmp_path / "a")))
    )
    shards = 3 if len(case.shapes) > 3 else 1
    folder = as_torch(case.write(tmp_path / "b"), shards)
    found = load_encoder(NumpyOps(cores=1), open_checkpoint(Card(id="x", path=folder)))
    texts = case.texts()[:4]
    assert np.array_equal(found.encode(texts), twin.encode(texts))


def test_modules_have_files_of_torch_too(tmp_path: Path) -> None:
    """As older sentence-transformers has them, also beside safetensors of the model itself."""
    write_bert(tmp_path)
    dense = {"in_features": 16, "out_features": 8, "activation_function": "torch.nn.Tanh"}
    dense["activation_function"] = "torch.nn.modules.activation.Tanh"
    write_modules(tmp_path, ("Pooling", {"pooling_mode_cls_token": True}), ("Dense", dense))
    twin = load(tmp_path)
    weights = tmp_path / "2_Dense" / "model.safetensors"
    (tmp_path / "2_Dense" / "pytorch_model.bin").write_bytes(pack(load_file(weights)))
    weights.unlink()
    assert np.array_equal(load(tmp_path), twin)


def test_a_file_of_any_name_is_read(tmp_path: Path) -> None:
    """As a head beside the model is kept."""
    head = tmp_path / "sparse_linear.pt"
    head.write_bytes((RECORDED / "protocol2.bin").read_bytes())
    found = {entry.stored: entry.shape for entry in read_torch_entries("x", head)}
    assert found == {"weight": (3, 4), "bias": (3,)}


def test_safetensors_come_first(tmp_path: Path) -> None:
    write_bert(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02not looked at")
    assert load(tmp_path).shape == (1, 16)


def test_the_names_of_the_first_berts_are_known(tmp_path: Path) -> None:
    twin = load(write_bert(tmp_path / "new"))
    old = write_bert(tmp_path / "old")
    oldest = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in load_file(old / "model.safetensors").items()
    }
    oldest["bert.embeddings.position_ids"] = np.arange(64)[None]
    oldest["cls.seq_relationship.bias"] = np.zeros(2, np.float32)
    oldest["cls.predictions.transform.LayerNorm.gamma"] = np.ones(16, np.float32)
    save_file(oldest, old / "model.safetensors")
    assert np.array_equal(load(old), twin)
    assert np.array_equal(load(as_torch(old)), twin)


def test_tensors_may_share_a_storage(tmp_path: Path) -> None:
    shared = storage("FloatStorage", "0", 6)
    pickled = state_dict({"a": tensor(shared, (2, 3), (3, 1)), "b": tensor(shared, (2,), (1,), 4)})
    found = read(write(tmp_path, torch_file(pickled, [np.arange(6, dtype="<f4").tobytes()])))
    assert found["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["b"].tolist() == [4, 5]


def test_the_stride_of_a_single_row_may_be_any(tmp_path: Path) -> None:
    view = tensor(storage("ByteStorage", "0", 6), (1, 2, 2), (2**62, 1, 2))
    found = read(write(tmp_path, torch_file(state_dict({"a": view}), [bytes(range(6))])))
    assert found["a"].tolist() == [[[0, 2], [1, 3]]]


def test_a_small_tensor_may_not_be_spread_over_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it would be read for a few numbers, which no plan of the memory has."""
    view = tensor(storage("HalfStorage", "0", 6), (2,), (5,))
    content = torch_file(state_dict({"a": view}), [bytes(12)])
    monkeypatch.setattr("embedsvc.checkpoints.torch_file.TORCH_GAPS", 8)
    assert read(write(tmp_path, content))["a"].tolist() == [0, 0]
    monkeypatch.setattr("embedsvc.checkpoints.torch_file.TORCH_GAPS", 7)
    said = "has 8 bytes between the numbers of tensor `a`, over 7; convert it"
    assert said in refusal(tmp_path, content)


@pytest.mark.parametrize("wide", [True, False])
def test_archives_with_and_without_numbers_of_64_bits_are_read(tmp_path: Path, wide: bool) -> None:
    one = state_dict({"a": parameter(tensor(storage("FloatStorage", "0", 1), (), ()))})
    content = torch_file(one, [np.float32(7).tobytes()], wide=wide)
    assert read(write(tmp_path, content))["a"] == 7


def test_what_torch_before_1_11_did_not_write_is_not_needed(tmp_path: Path) -> None:
    one = state_dict({"a": tensor(storage("ByteStorage", "0", 1), (1,), (1,))})
    members = [("archive/data.pkl", one), ("archive/data/0", b"\7"), ("archive/version", b"3\n")]
    assert read(write(tmp_path, archive(members)))["a"] == 7


ONE = tensor(storage("FloatStorage", "0", 2), (2,), (1,))
PLAIN = state_dict({"a": ONE})
DOUBLED = tensor(storage("DoubleStorage", "0", 2), (2,), (1,))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"hello", "is no file of torch's"),
        (b"<html>", "is a web page"),
        (torch_file(PLAIN, []), "has none of its storage '0', which has 2 numbers of 4 bytes"),
        (torch_file(PLAIN, [b"\0" * 7]), "has 7 bytes of its storage '0'"),
        (torch_file(PLAIN, [b"\0" * 9]), "has 9 bytes of its storage '0'"),
        (torch_file(state_dict({"a": DOUBLED, "b": ONE}), [b"\0" * 16]), "says two things of its"),
        (archive([("a/data.pkl", PLAIN), ("b/data.pkl", PLAIN)]), "has 2 members data.pkl"),
        (archive([("data.pkl", PLAIN)]), "has 0 members data.pkl"),
        (
            archive([("a/data.pkl", PLAIN), ("a/byteorder", b"big")]),
            "has its bytes in the order b'big'; convert it, where torch is installed: python -c",
        ),
        (archive([("a/data.pkl", PLAIN), ("a/byteorder", b"x" * 101)]), "of 101 bytes, over 100"),
        (archive([("a/data.pkl", b"\0" * (9 << 20))]), "of 9437184 bytes, over 8388608"),
        (torch_file(b"\x80\x02cos\nsystem\n.", []), "it names 'os.system', which is not called"),
    ],
)
def test_what_cannot_be_read_is_refused_by_file(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(tmp_path, content)


def test_a_command_is_never_made_of_a_strangers_name(tmp_path: Path) -> None:
    write_bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    shard = "$(touch x)'.bin"
    (tmp_path / shard).write_bytes(b"\x80\x02")
    index = '{"weight_map": {"a": "$(touch x)\'.bin"}}'
    (tmp_path / "pytorch_model.bin.index.json").write_text(index)
    assert "torch.load('FILE', 'cpu', weights_only=True)" in refused(tmp_path)


def test_a_member_that_is_compressed_is_never_unpacked(tmp_path: Path) -> None:
    """A bomb: it would be a gigabyte."""
    file = tmp_path / "pytorch_model.bin"
    pickled = state_dict({"a": tensor(storage("ByteStorage", "0", 1 << 28), (1 << 28,), (1,))})
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        out.writestr(zipfile.ZipInfo("a/data.pkl"), pickled)
        with out.open("a/data/0", "w") as member:
            for _ in range(1 << 8):
                member.write(b"\0" * (1 << 20))
    with pytest.raises(CheckpointError, match="'a/data/0' compressed or encrypted"):
        Tensors("x", tmp_path)


def test_changed_files_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    """Some hundred, of which each is one of torch's with some change."""
    plain = [(RECORDED / f"{name}.bin").read_bytes() for name in ("protocol2", "protocol4")]
    plain.append((RECORDED / "views.bin").read_bytes())
    refused: list[str] = []
    came = 0
    for seed in range(400):
        chance = random.Random(seed)
        write(tmp_path, mutated(chance, chance.choice(plain)))
        try:
            found = read(tmp_path)
        except CheckpointError as error:
            refused.append(str(error))
        else:
            size = (tmp_path / "pytorch_model.bin").stat().st_size
            assert all(value.nbytes <= 2 * size for value in found.values()), seed
            came += 1
    assert all(each.isprintable() and len(each) < 2000 for each in refused)
    assert came > 20
    assert len(refused) > 100
    assert not Path("it-ran").exists()
