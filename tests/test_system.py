"""What the service asks of the system: a home, the servers that are here, an event loop."""

import asyncio
import sys
from pathlib import Path

import pytest

from embedsvc.errors import CardsError
from embedsvc.system.home import expanded, home
from embedsvc.system.loop import new_event_loop
from embedsvc.system.proxy import is_here


def test_a_home_is_what_home_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path
    assert expanded(Path("~/models")) == tmp_path / "models"
    assert expanded(Path("models/~")) == Path("models/~")


def test_without_a_home_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(CardsError, match="there is no home folder: set HOME"):
        home()
    with pytest.raises(CardsError, match="~nobody-of-that-name/x: there is no such home"):
        expanded(Path("~nobody-of-that-name/x"))


@pytest.mark.parametrize(
    "url",
    ["http://localhost:8000/v1", "http://127.1.2.3", "https://[::1]:8000", "http://LOCALHOST"],
)
def test_an_address_of_this_machine_alone_is_here(url: str) -> None:
    assert is_here(url)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:8000", "http://localhost.example.org", "http://[::2]", "localhost", ""]
)
def test_any_other_address_is_not(url: str) -> None:
    assert not is_here(url)


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop does not run there")
def test_the_event_loop_is_uvloops() -> None:
    import uvloop

    loop = new_event_loop()
    try:
        assert isinstance(loop, uvloop.Loop)
        assert loop.run_until_complete(asyncio.sleep(0, "done")) == "done"
    finally:
        loop.close()
