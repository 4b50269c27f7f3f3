"""A model's name as people write it: one resolution for every route, and near names in refusals."""

import doctest
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from embedsvc.bounds import AD_HOC_MODELS, MODEL_NAME
from embedsvc.catalog import names
from embedsvc.catalog.ad_hoc import ad_hoc_card
from embedsvc.catalog.cards_file import read_cards
from embedsvc.catalog.names import Known, Names
from embedsvc.cli import main
from embedsvc.errors import CardsError
from embedsvc.texts.prompts import split_name
from tests.support.app import serve
from tests.support.project import ROOT
from tests.support.tiny_registry import write_cards

SHIPPED = read_cards(ROOT / "models.toml")


def meant(name: str) -> tuple[str, str | None] | None:
    found = split_name(name, SHIPPED, lambda card: card.prompts or {})
    return found and (found[0].id, found[1])


def test_what_the_normal_form_leaves_out_is_as_documented() -> None:
    found = doctest.testmod(names)
    assert found.attempted >= 6
    assert not found.failed


SECOND = {"bge-m3-hybrid"}
"""Cards of a repository whose name is another card's alias."""


@pytest.mark.parametrize("card", SHIPPED.by_id.values(), ids=lambda card: card.id)
def test_every_model_is_found_however_its_name_is_written(card) -> None:
    written = [
        card.id,
        card.repo,
        f"{card.id}:latest",
        f"{card.repo}:latest",
        card.id.lower(),
        card.repo.upper(),
        f" {card.id}\n",
        card.repo.replace("/", "%2F"),
        card.id.replace("-", "_"),
        card.id.replace(".", "-"),
        f"hf.co/{card.repo}",
        f"https://huggingface.co/{card.repo}",
        f"https://huggingface.co/{card.repo}/tree/main",
        f"https://www.huggingface.co/{card.repo}?library=sentence-transformers#usage",
        f"mlx-community/{card.id}-bf16",
        f"mlx-community/{card.id}",
        f"Xenova/{card.id}",
        *card.aliases,
    ]
    if card.id in SECOND:
        written = [name for name in written if "bge-m3-hybrid" in name.lower().replace("_", "-")]
    for name in written:
        assert meant(name) == (card.id, None), name
        assert meant(f"{name.strip()}:query") == (card.id, "query"), name


@pytest.mark.parametrize(
    "name",
    [
        "acme/bge-m3",  # another's model of the same name
        "mlx-community/bge-m3-4bit",  # other vectors
        "all-minilm:l3-v2",  # a tag may be another model than `all-minilm`
        "bge-m3:nothing",
        "bge-m",
        "\N{KELVIN SIGN}bge-m3",
        "bge\N{CYRILLIC SMALL LETTER ES}-m3",
        "./bge-m3",
        "/bge-m3",
    ],
)
def test_what_may_be_another_model_is_not_taken_for_one(name: str) -> None:
    assert meant(name) is None


def test_an_exact_name_wins_and_an_ambiguous_one_is_nobodys(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    tables = "".join(f"[models.'{name}']\npath = 'x'\n" for name in ("a/m", "b/m", "M.1", "m-1"))
    file.write_text(tables)
    cards = read_cards(file)

    def found(name: str) -> str | None:
        found = cards.find(name)
        return found and found[0].id

    assert [found(name) for name in ("a/m", "B/M", "M.1", "m-1")] == ["a/m", "b/m", "M.1", "m-1"]
    assert found("m") is None
    assert cards.names.near("m") == ["a/m", "b/m"]
    assert found("M_1") is None
    assert "Did you mean `M.1` or `m-1`?" in str(cards.not_found("M_1"))


def test_names_compared_with_one_that_is_nobodys_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(names, "NAMES_COMPARED", 5)
    known = Names(Known(f"model-{number}", f"model-{number}") for number in range(10))
    assert known.near("model-x") == ["model-0", "model-1", "model-2"]
    assert known.near("zzz") == []
    assert known._pairs is not None
    assert len(known._pairs) == 5


def test_spellings_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "NAMES_COMPARED", 5)
    known = Names([Known("model", "model")])
    for spaces in range(20):
        assert known.find(f"model{' ' * spaces}") == Known("model", "model")
        assert len(known._found) <= 5


# --- over HTTP ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("names")
    write_cards(folder, a="aliases = ['org/First-Model']\nprompts = {query = 'find: '}")
    with serve(models=folder / "models.toml", allow_ad_hoc=True) as client:
        yield client


def ask(client: TestClient, route: str, name: str) -> Response:
    """A request of each route that takes a model's name, for that one."""
    method, path = route.split(" ")
    path = path.replace("{name}", quote(name, safe=""))
    body = {
        **dict.fromkeys(("model", "model_id"), name),
        **dict.fromkeys(("input", "inputs", "prompt"), "hello"),
        "texts": ["hello"],
    }
    if path == "/api/embed":
        body["input"] = "hello"
    if path == "/v2/embed":
        del body["inputs"]
    return client.request(method, path, json=body if method == "POST" else None)


ROUTES = [
    "POST /v1/embeddings",
    "POST /openai/deployments/{name}/embeddings",
    "POST /v1/engines/{name}/embeddings",
    "GET /v1/models/{name}",
    "POST /api/embed",
    "POST /api/embeddings",
    "POST /api/show",
    "POST /v2/embed",
    "POST /tokenize",
    "POST /v1/instances",
    "GET /v1/instances?model={name}",
    "POST /instance",
    "POST /place_instance",
    "GET /instance/await?model_id={name}&timeout_seconds=20",
]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "name", ["A", "a:latest", " a\n", "first-model", "ORG/first_model:latest", "org%2FFirst-Model"]
)
def test_every_route_takes_a_name_as_people_write_it(
    server: TestClient, route: str, name: str
) -> None:
    answer = ask(server, route, name.rstrip() if "/{name}" in route else name)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_says_which_names_are_near(server: TestClient, route: str) -> None:
    answer = ask(server, route, "first-modell")
    assert answer.status_code == 404
    assert "Did you mean `org/First-Model`?" in answer.text


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * (MODEL_NAME + 1), f"at most {MODEL_NAME} characters"),
        ("./" + "a/../" * 40 + "a", f"at most {MODEL_NAME} characters"),
        ("a\n2026-01-01 ERROR forged", "no line breaks or control characters"),
        ("a\x1b[2J", "no line breaks or control characters"),
    ],
)
def test_every_route_refuses_what_is_no_name(
    server: TestClient, route: str, name: str, said: str
) -> None:
    answer = ask(server, route, name)
    if "\n" in name and "/{name}" in route:
        assert answer.status_code == 404  # no path has a line break in it
        return
    assert answer.status_code == 400, answer.text
    assert said in answer.text
    assert "model" in answer.text
    assert len(answer.content) < 1000
    assert "\x1b" not in answer.text


def test_a_name_of_the_length_that_is_allowed_is_looked_up(server: TestClient) -> None:
    assert ask(server, "POST /v1/embeddings", "x" * MODEL_NAME).status_code == 404


def test_an_instance_of_any_id_is_a_404_that_shows_little_of_it(server: TestClient) -> None:
    answer = server.get("/v1/instances/" + "%1b" * 3000)
    assert answer.status_code == 404
    assert len(answer.content) < 2000
    assert b"\\u001b" not in answer.content


# --- without a card ----------------------------------------------------------------------------


def test_two_names_of_one_folder_are_one_model(server: TestClient, tmp_path: Path) -> None:
    root = server.app.state.registry.cards.file.parent  # type: ignore[attr-defined]
    (root / "link").symlink_to(root / "tiny")
    spellings = ["./tiny", "./tiny/", ".//tiny", "./link", "./link/../tiny", str(root / "tiny")]
    made = [server.post("/v1/instances", json={"model": name}).json() for name in spellings]
    assert {each["model"] for each in made} == {"./tiny"}
    assert len({each["id"] for each in made}) == 1
    for name in spellings:
        assert ask(server, "POST /v1/embeddings", name).status_code == 200, name
    assert server.get("/v1/models/.%2Flink").json()["root"] == "./tiny"


def test_a_repository_is_one_model_by_its_address_too(tmp_path: Path) -> None:
    spellings = ["org/Model", "https://huggingface.co/org/Model", "hf.co/org/Model:latest"]
    cards = [ad_hoc_card(name, tmp_path) for name in spellings]
    assert {card and (card.id, card.repo) for card in cards} == {("org/Model", "org/Model")}


def test_a_folder_is_looked_for_away_from_the_event_loop(
    server: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def look(name: str, root: Path) -> None:
        seen.append(threading.current_thread().name.partition("_")[0])

    monkeypatch.setattr("embedsvc.serving.ad_hoc.ad_hoc_card", look)
    assert server.post("/v1/instances", json={"model": "./elsewhere"}).status_code == 404
    assert seen == ["files"]


def test_models_that_failed_are_forgotten_before_they_are_many(tmp_path: Path) -> None:
    write_cards(tmp_path)
    for number in range(3 * AD_HOC_MODELS):
        (tmp_path / f"empty{number}").mkdir()
    with serve(models=tmp_path / "models.toml", allow_ad_hoc=True) as client:
        loaded = client.post("/v1/instances", json={"model": "./tiny"}).json()
        client.get(f"/v1/instances/{loaded['id']}/events")
        for number in range(3 * AD_HOC_MODELS):
            made = client.post("/v1/instances", json={"model": f"./empty{number}"}).json()
            told = client.get(f"/v1/instances/{made['id']}/events").text
            assert '"state":"failed"' in told
        registry = client.app.state.registry  # type: ignore[attr-defined]
        assert len(registry.cards.ad_hoc) == AD_HOC_MODELS
        assert len(registry.instances()) == AD_HOC_MODELS
        assert len(client.get("/v1/models").json()["data"]) == AD_HOC_MODELS + 3
        assert ask(client, "POST /v1/embeddings", "./tiny").status_code == 200
        assert len(client.get("/metrics").text) < 100_000


def test_one_more_than_may_be_in_use_is_told_when_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedsvc.serving.ad_hoc.AD_HOC_MODELS", 1)
    write_cards(tmp_path)
    (tmp_path / "another").mkdir()
    with serve(models=tmp_path / "models.toml", allow_ad_hoc=True) as client:
        assert client.post("/v1/instances", json={"model": "./tiny"}).status_code == 200
        answer = client.post("/v1/instances", json={"model": "./another"})
        assert "1 models without a card are loaded" in answer.json()["error"]["message"]
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


# --- on the command line -----------------------------------------------------------------------


def test_commands_take_a_name_as_people_write_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cards(tmp_path, "abc", a="aliases = ['org/First-Model']")
    cards = ["--models", str(tmp_path / "models.toml"), "--backend", "numpy"]
    assert main(["verify", "FIRST_MODEL:latest", *cards]) in (0, 1)
    assert main(["verify", "first-modell", *cards]) == CardsError.exit_code
    assert "is it `org/First-Model`?" in capsys.readouterr().err
