"""Nothing in a report tells who made it: names that are planted everywhere come out nowhere."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from embedsvc.catalog.cards import Card
from embedsvc.catalog.cards_file import read_cards
from embedsvc.diagnosis.report import facts, private
from embedsvc.diagnosis.report.private import Hiding
from embedsvc.inference.gpu import Unused
from embedsvc.inference.ops.numpy import NumpyOps
from embedsvc.system.mac import Mac
from tests.support.checkpoints import write_bert
from tests.support.project import ROOT

USER, PERSON, HOST = "zoe-planted", "Zoe Planted-Smith", "planted-laptop.example.org"
PLANTED = ("planted", "zoe", "smith", "laptop")
WITHOUT_PAUSES = """
import sys
from embedsvc.cli import main
from embedsvc.commands import report
report.CLOCK = report.CLOCK._replace(pause=lambda _: None)
sys.exit(main())
"""


def planted(text: str) -> list[str]:
    return [name for name in PLANTED if name in text.lower()]


def test_a_report_from_folders_with_names_in_them_has_none_of_them(tmp_path: Path) -> None:
    """The folders of the checkout, of the home and of the models, and the environment."""
    home = tmp_path / USER
    models = home / "Zoe's models (planted)"
    models.mkdir(parents=True)
    checkout = home / "planted-checkout"
    checkout.symlink_to(ROOT)
    mine, broken = write_bert(models / "planted-notes"), write_bert(models / "zoe-broken")
    (broken / "config.json").write_text("{")
    cards = models / "planted.toml"
    cards.write_text(
        f'[models."zoe-planted/private"]\npath = "{mine}"\nrepo = "zoe-planted/private"\n'
        "aliases = ['planted']\n"
        f'[models."planted broken"]\npath = "{broken}"\n'
    )
    written = [home / "planted.json", home / "planted.md"]
    options = ["--quick", "--seconds", "0.05", "--backend", "numpy", "--models", str(cards)]
    options += ["--model", "planted broken", "--json", str(written[0]), "--markdown"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PAUSES, "report", *options, str(written[1])],
        cwd=home,
        env=os.environ
        | {"PYTHONPATH": str(checkout), "HOME": str(home), "HF_HOME": str(models)}
        | dict.fromkeys(private.USERS, USER)
        | dict.fromkeys(private.HOSTS, HOST),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    texts = [done.stdout, done.stderr, *(file.read_text() for file in written)]
    assert "unlisted-1" in texts[0]
    assert "ERROR" in texts[0]
    assert [planted(text) for text in texts] == [[], [], [], []]
    assert str(tmp_path) not in "".join(texts)


@pytest.fixture
def hiding(monkeypatch: pytest.MonkeyPatch) -> Hiding:
    """Of a user on a machine, who has a model."""
    for name in (*private.USERS, *private.HOSTS):
        monkeypatch.delenv(name, raising=False)
    entry = SimpleNamespace(pw_name=USER, pw_dir=f"/Users/{USER}", pw_gecos=f"{PERSON},,,")
    monkeypatch.setattr(private.pwd, "getpwuid", lambda _: entry)
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    return Hiding([Card(id="planted-notes", path=Path("/Volumes/Zoe's disk/planted"))])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no folder /Volumes/Zoe's disk/planted", "no folder [hidden]"),
        ("model `planted-notes`: is broken", "model `[hidden]`: is broken"),
        (f"for {PERSON} on {HOST}", "for [hidden] on [hidden]"),
        ("ZOE-PLANTED@PLANTED-LAPTOP", "[hidden]@[hidden]"),
        ("/private/var/x.json: no such file", "[hidden]: no such file"),
        ("~/models is a file; ask http://10.0.0.7/", "[hidden] is a file; ask http:[hidden]"),
        ("7 texts/s, 1/2, cosine 1.0", "7 texts/s, 1/2, cosine 1.0"),
        ("repository BAAI/bge-m3", "repository BAAI/bge-m3"),
    ],
)
def test_what_tells_of_somebody_is_hidden(text: str, expected: str, hiding: Hiding) -> None:
    assert hiding.hide(text) == expected


def test_a_model_is_named_only_where_everybody_may_know_it() -> None:
    shipped = read_cards(ROOT / "models.toml").by_id["all-MiniLM-L6-v2"]
    cards = [
        shipped,
        Card(id="my-bge", repo="mlx-community/bge-m3-mlx-8bit"),
        Card(id="mine", repo="zoe-planted/private"),
        Card(id="bge-small-en-v1.5", path=Path("/somewhere/else")),
    ]
    hiding = Hiding(cards)
    assert [hiding.name(card) for card in cards] == [
        "all-MiniLM-L6-v2",
        "mlx-community/bge-m3-mlx-8bit",
        "unlisted-3",
        "unlisted-4",
    ]
    assert hiding.hide("my-bge, zoe-planted/private") == "[hidden], [hidden]"


def test_folders_are_hidden_by_where_their_links_lead_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for real, link in (("Zoe planted", "home"), ("Zoe's planted model", "model")):
        (tmp_path / real).mkdir()
        (tmp_path / link).symlink_to(tmp_path / real)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    hiding = Hiding([Card(id="mine", path=Path("model"))])
    said = f"{tmp_path}/Zoe planted: full; {tmp_path}/Zoe's planted model: no folder"
    assert hiding.hide(said) == "[hidden]: full; [hidden]: no folder"


def test_a_user_without_a_name_has_none_to_hide(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> object:
        raise KeyError("uid not found")

    monkeypatch.setattr(private.pwd, "getpwuid", unknown)
    assert Hiding([]).hide("all is well") == "all is well"


def test_a_kernel_that_somebody_named_is_told_by_its_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(facts.platform, "system", lambda: "Linux")
    monkeypatch.setattr(facts.platform, "release", lambda: "6.1.0-zoe-planted+")
    assert facts.this_machine().system.endswith("Linux 6.1.0")


def test_a_mac_is_told_by_its_kind_and_not_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(facts, "this_mac", lambda: Mac(15, silicon=True, translated=True))
    monkeypatch.setattr(facts, "sysctl_text", {"hw.model": "Mac14,2"}.get)
    monkeypatch.setattr(facts.platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
    found = facts.this_machine()
    assert (found.system, found.model, found.translated) == ("macOS 15.1", "Mac14,2", True)
    monkeypatch.setattr(facts, "unused_gpu", lambda: Unused("Rosetta translates it", "arm64"))
    assert facts.backend(NumpyOps(cores=1)).unused_gpu == "Rosetta translates it"
