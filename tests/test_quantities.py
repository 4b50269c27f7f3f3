"""Sizes and times as people write them, wherever they are written."""

import doctest
import re
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from embedsvc.catalog.cards_file import read_cards
from embedsvc.cli import main
from embedsvc.errors import CardsError
from embedsvc.settings import read_settings
from embedsvc.wording import msgspec_errors, quantities
from embedsvc.wording.quantities import read_bytes, read_keep_alive, read_seconds
from tests.support.fake_server import FakeServer
from tests.support.project import ROOT

SIZES = {
    "0": 0,
    "8GB": 8 * 10**9,
    "8 gb": 8 * 10**9,
    "8g": 8 << 30,
    "1.5G": 3 << 29,
    "512MiB": 512 << 20,
    "64k": 64 << 10,
    "1.5kB": 1500,
    ".5TB": 500 * 10**9,
    "67108864": 64 << 20,
}
NO_SIZES = ["", "g", "-1", "1,5g", "1e9", "nan", "inf", "8 G B", "8XB", "٣GB", "1_000", "9" * 99]
TIMES = {
    "0": 0.0,
    "90": 90.0,
    "0.5": 0.5,
    "10m": 600.0,
    "1h30m": 5400.0,
    "1h 30m": 5400.0,
    "24h0m0s": 86400.0,
    "2d": 172800.0,
    "1w": 604800.0,
    "300ms": 0.3,
    "10µs": 1e-5,
    "2 hours": 7200.0,
    "10min": 600.0,
}
NO_TIMES = [
    "",
    "m",
    "-",
    "1h30",
    "10 lightyears",
    "1e3",
    "nan",
    "inf",
    "1h-5m",
    "1" * 99,
    "1h" * 50,
]


@pytest.mark.parametrize("module", [quantities, msgspec_errors], ids=lambda module: module.__name__)
def test_the_examples_are_right(module) -> None:
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_a_size_is_taken_with_its_unit(text: str, size: int) -> None:
    assert read_bytes(text) == size
    if size:
        assert read_settings({"max_memory": text}, {}).max_memory == size
        assert read_settings({}, {"EMBEDSVC_MAX_BODY_BYTES": text}).max_body_bytes == size


@pytest.mark.parametrize(("text", "seconds"), TIMES.items())
def test_a_time_is_taken_with_its_unit_everywhere(
    text: str, seconds: float, tmp_path: Path, client: TestClient
) -> None:
    assert read_seconds(text) == pytest.approx(seconds)
    assert read_settings({"keep_alive": text}, {}).keep_alive == pytest.approx(seconds)
    found = read_settings({}, {"EMBEDSVC_DRAIN_SECONDS": text}).drain_seconds
    assert found == pytest.approx(seconds)
    file = tmp_path / "models.toml"
    file.write_text(f"[models.a]\npath = 'a'\nkeep_alive = '{text}'\n")
    assert read_cards(file).by_id["a"].keep_alive == pytest.approx(seconds)
    model = client.get("/v1/models").json()["data"][0]["root"]
    made = client.post("/v1/instances", json={"model": model, "keep_alive": text})
    assert made.json()["keep_alive"] == pytest.approx(seconds)


@pytest.mark.parametrize("said", [-1, -2.5, "-1", "-1m", "-24h"])
def test_minus_one_and_below_is_for_ever_as_ollama_has_it(said: str | float) -> None:
    assert read_keep_alive(said) == -1.0


@pytest.mark.parametrize("said", [-0.5, -1e-9, "-0.5", "-250ms"])
def test_a_little_less_than_no_time_is_refused(said: str | float, client: TestClient) -> None:
    sent = {"model": "org/tiny", "keep_alive": said}
    answer = client.post("/v1/instances", json=sent)
    wanted = "Invalid 'keep_alive': must be 0 or more, or -1 or less for ever."
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, wanted)


@pytest.mark.parametrize("text", NO_SIZES)
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size, as 8000000000, 8GB"):
        read_bytes(text)


@pytest.mark.parametrize("text", NO_TIMES)
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time, as 90, 10m"):
        read_keep_alive(text)


def test_there_is_a_bound_on_both() -> None:
    for size in ("99999999PB", "9" * 20):
        with pytest.raises(ValueError, match="must be at most 4611686018427387904 bytes"):
            read_bytes(size)
    for seconds in ("101 years", "9999999d", "9" * 20, 1e300, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be"):
            read_keep_alive(seconds)


def test_the_command_line_takes_units_for_a_running_server() -> None:
    with FakeServer() as server:
        main(["load", "a", "--keep-alive", "1h30m", "--url", server.url])
        assert server.requests == [{"model": "a", "keep_alive": 5400.0, "pin": None}]
        assert main(["load", "a", "--keep-alive", "soon", "--url", server.url]) == 3
        assert len(server.requests) == 1


# --- no type of Python's, anywhere ---------------------------------------------------------------

PYTHON = re.compile(r"`(int|str|float|bool|array|object)\b|\b(int|str|float|NoneType|dict)\b")
"""How Python, or msgspec, would name a type."""
BODIES = [
    ("/v1/embeddings", {"model": "a", "input": "x", "prompt": 7}),
    ("/v1/embeddings", {"model": "a", "input": "x", "chunking": {"size": "x"}}),
    ("/v1/embeddings", {"model": "a", "input": "x", "user": 1, "truncate": 3}),
    ("/v1/instances", {"model": 1}),
    ("/v1/instances", {"model": "a", "keep_alive": {}}),
    ("/v1/instances", {"model": "a", "pin": "yes"}),
    ("/v1/instances", [1]),
    ("/api/embed", {"model": "a", "input": [1]}),
    ("/embed", {"inputs": [1]}),
]


@pytest.mark.parametrize(
    "name", ["port", "cores", "max_memory", "keep_alive", "insecure", "log_level"]
)
@pytest.mark.parametrize("value", ["x", "-", "1.5.", "", "[1]", "1e5"])
def test_no_setting_s_refusal_names_a_type_of_python(name: str, value: str) -> None:
    option = f"--{name.replace('_', '-')}={value}: "
    with pytest.raises(CardsError) as refused:
        read_settings({name: value}, {})
    assert str(refused.value).startswith(f"{option}must be ")
    assert not PYTHON.search(str(refused.value).removeprefix(option))


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_no_answer_names_a_type_of_python(client: TestClient, path: str, body: object) -> None:
    answer: httpx2.Response = client.post(path, json=body)
    assert answer.status_code == 400
    assert not PYTHON.search(answer.text), answer.text


def test_whatever_msgspec_says_is_passed_on_in_words() -> None:
    found = 0
    for file in (ROOT / "embedsvc").rglob("*.py"):
        for caught in re.split(r"except msgspec.ValidationError as error:", file.read_text())[1:]:
            handled = caught.partition("\n    except ")[0].partition("\ndef ")[0]
            if "error" in handled:
                assert re.search(r"plain_types|_name_key|wrong_field|_in_openais_order", handled), (
                    file
                )
                found += 1
    assert found > 3
