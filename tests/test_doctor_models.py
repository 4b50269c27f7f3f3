"""`embedsvc doctor`: what it says of the models, right or wrong."""

import os
import re
import socket
import subprocess
import sys

import pytest

from tests.support.checkpoints import write_bert, write_json
from tests.support.doctor import Doctor
from tests.support.project import ROOT


def test_it_says_what_a_model_is(doctor: Doctor) -> None:
    line = doctor.line("tiny")
    assert line.startswith("ok ")
    assert line.endswith(f"bert, 0 MB of weights, in {doctor.home}/tiny")


def test_a_model_that_has_no_room_is_wrong_and_may_be_made_smaller(doctor: Doctor) -> None:
    line = doctor.line("tiny", "--backend", "numpy", "--max-memory", "1000")
    assert line.startswith("WRONG")
    assert re.search(r"needs \d.* kB, and models may take 1 kB", line)
    assert "(--max-memory) -> a smaller model" in line
    assert doctor.code == 1


def test_a_folder_that_is_not_there_is_wrong(doctor: Doctor) -> None:
    doctor.cards.write_text("[models.gone]\npath = 'nowhere'\n")
    line = doctor.line("gone")
    assert line.startswith("WRONG")
    assert f"no folder {doctor.home}/nowhere" in line
    assert "-> correct its `path`" in line
    assert doctor.code == 1


def test_a_file_of_weights_that_was_cut_off_is_wrong(doctor: Doctor) -> None:
    weights = doctor.home / "tiny/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    line = doctor.line("tiny")
    assert line.startswith("WRONG")
    assert "model.safetensors" in line


def test_weights_with_another_digest_are_wrong(doctor: Doctor) -> None:
    doctor.cards.write_text(doctor.cards.read_text() + f"sha256 = '{'0' * 64}'\n")
    assert "is not the file the card names" in doctor.line("tiny")
    assert doctor.code == 1


def test_an_architecture_that_is_not_supported_is_wrong(doctor: Doctor) -> None:
    write_bert(doctor.home / "tiny", model_type="abacus")
    line = doctor.line("tiny")
    assert "model_type `abacus` is not supported" in line
    assert "the nearest that is, is `" in line
    assert doctor.code == 1


def test_a_tokeniser_that_is_missing_is_wrong(doctor: Doctor) -> None:
    (doctor.home / "tiny/tokenizer.json").unlink()
    assert doctor.line("tiny").startswith("WRONG")


def test_a_card_with_a_wrong_key_is_wrong_and_the_rest_is_still_looked_at(doctor: Doctor) -> None:
    doctor.cards.write_text("[models.x]\npath = 'tiny'\ncolour = 'red'\n")
    lines = doctor.lines()
    assert doctor.code == 1
    assert any(line.startswith("WRONG  cards") and "unknown key `colour`" in line for line in lines)
    assert any(" address: " in line for line in lines)


def test_nothing_is_downloaded(doctor: Doctor) -> None:
    """With a hub at hand that would take note, and one model half downloaded."""
    doctor.cards.write_text(
        "[models.small]\nrepo = 'org/small'\n[models.half]\nrepo = 'org/half'\n"
        "[models.first]\nrepo = 'org/first'\npreload = true\n"
    )
    half = doctor.home / "hub/models--org--half"
    write_json(half / "snapshots/abc/config.json", {"model_type": "bert"})
    (half / "refs").mkdir()
    (half / "refs/main").write_text("abc")
    with socket.create_server(("127.0.0.1", 0)) as hub:
        hub.setblocking(False)
        address = f"http://127.0.0.1:{hub.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "embedsvc", "doctor", "--models", str(doctor.cards)],
            env=os.environ | {"HF_ENDPOINT": address, "HF_HUB_CACHE": str(doctor.home / "hub")},
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        with pytest.raises(BlockingIOError):
            hub.accept()
    assert done.returncode == 1, done.stderr
    assert "note   to download: 1, each when it is first asked for: small" in done.stdout
    assert "note   first: not here; downloaded when the server starts" in done.stdout
    assert "WRONG  half: model `half`: " in done.stdout


def test_of_many_models_that_are_not_here_a_few_are_named(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(doctor.home / "hub"))
    cards = [f"[models.m{number}]\nrepo = 'no-org/m{number}'\n" for number in range(40)]
    doctor.cards.write_text("".join(cards))
    line = doctor.line("to download")
    assert line == (
        "note   to download: 40, each when it is first asked for: "
        "m0, m1, m2 and 37 more, which `embedsvc models` lists"
    )
    assert all(len(line) < 200 for line in doctor.lines())
