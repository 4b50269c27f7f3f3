"""The dashboard's page, its files and its stream; tests/dashboard has the page in a browser."""

import json
import re
import signal

import httpx2
import pytest
from starlette.testclient import TestClient

from embedsvc.telemetry.histogram import SECONDS
from embedsvc.web.admin.dashboard import FOLDER
from embedsvc.web.admin.rates import Snapshot, compare, snapshot
from tests.support.app import serve
from tests.support.server import serving

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
KEY = "sk-a-right-key-123456"
FILES = sorted(path.name for path in FOLDER.iterdir() if path.name != "index.html")


def test_a_browser_gets_the_page_where_ollamas_clients_get_their_words(client: TestClient) -> None:
    page = client.get("/", headers=BROWSER)
    assert page.headers["content-type"].startswith("text/html")
    assert page.content == client.get("/dashboard").content == (FOLDER / "index.html").read_bytes()
    for headers in ({}, {"accept": "*/*"}, {"accept": "application/json"}):
        answer = client.get("/", headers=headers)
        assert answer.text == "Ollama is running"
        assert answer.headers["vary"] == page.headers["vary"] == "accept"
    assert client.post("/", json={"inputs": "hello"}, headers=BROWSER).json()[0]


def test_the_page_is_found_with_a_slash_too_many(client: TestClient) -> None:
    answer = client.get("/dashboard/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (308, "../dashboard")


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_as_what_it_is(client: TestClient, name: str) -> None:
    answer = client.get(f"/dashboard/{name}")
    assert answer.content == (FOLDER / name).read_bytes()
    kind = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    assert answer.headers["content-type"].startswith(kind[name.rpartition(".")[2]])


def test_page_and_files_run_only_what_is_theirs(client: TestClient) -> None:
    for path in ("/dashboard", *(f"/dashboard/{name}" for name in FILES)):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"


def test_nothing_is_inline_or_from_elsewhere() -> None:
    page = (FOLDER / "index.html").read_text()
    assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:|(?:https?:)?//\w", page)
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) == [""]
    for name in re.findall(r'(?:href|src)="([^"#]+)"', page):
        assert (FOLDER.parent / name).is_file()
    for name in FILES:
        text = (FOLDER / name).read_text().replace("http://www.w3.org/", "")
        assert not re.search(r"https?://|@import|innerHTML|eval\(|\burl\(h", text), name
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert (FOLDER / imported).is_file()


@pytest.mark.parametrize(
    "path", ["none.js", "..%2Fdocs.html", "..", "index.html", "page.css%00", "PAGE.CSS", "a.py"]
)
def test_there_is_nothing_else_below_it(client: TestClient, path: str) -> None:
    answer = client.get(f"http://localhost/dashboard/{path}", headers={"accept": "*/*"})
    assert answer.status_code == 404 or answer.text == "Ollama is running"


def test_with_keys_the_page_is_open_and_what_it_asks_for_is_not(cards_file) -> None:
    with serve(models=cards_file, api_keys=(KEY,)) as client:
        assert client.get("/", headers=BROWSER).status_code == 200
        for path in ("/dashboard", *(f"/dashboard/{name}" for name in FILES)):
            assert client.get(path).status_code == 200
        for method, path in (
            ("GET", "/"),
            ("POST", "/"),
            ("GET", "/v1/activity"),
            ("GET", "/v1/models"),
            ("GET", "/v1/instances"),
            ("POST", "/v1/instances"),
            ("POST", "/v1/embeddings"),
            ("POST", "/tokenize"),
            ("GET", "/dashboards"),
        ):
            headers = BROWSER if method == "POST" else {}
            assert client.request(method, path, headers=headers).status_code == 401, path


def test_only_page_and_files_are_below_the_open_path(client: TestClient) -> None:
    below = [route.path for route in client.app.routes if route.path.startswith("/dashboard")]  # type: ignore[attr-defined]
    assert below == ["/dashboard", "/dashboard/{name}"]


def test_without_keys_a_name_of_elsewhere_gets_no_page(client: TestClient) -> None:
    for path in ("/", "/dashboard", "/dashboard/page.js"):
        answer = client.get(path, headers=BROWSER | {"host": "rebound.example"})
        assert answer.status_code == 403


def test_models_tell_whose_other_names_they_are(client: TestClient) -> None:
    roots = {each["id"]: each["root"] for each in client.get("/v1/models").json()["data"]}
    assert roots == {"org/tiny": "org/tiny", "embed": "org/tiny"}


def test_tokens_may_be_those_of_any_model(client: TestClient) -> None:
    sent = {"inputs": ["hello world"]}
    first = client.post("/tokenize", json=sent).json()
    assert client.post("/tokenize", json=sent | {"model": "embed"}).json() == first
    assert client.post("/tokenize", json=sent | {"model": "none"}).status_code == 404


def test_activity_is_what_was_done_between_two_readings(client: TestClient) -> None:
    metrics = client.app.state.metrics  # type: ignore[attr-defined]
    before = snapshot(metrics)
    for text in ("hello", "world", "hello"):
        body = {"model": "embed", "input": [text, f"{text} b", f"{text} c"]}
        client.post("/v1/embeddings", json=body)
    activity = compare(before, snapshot(metrics))
    assert activity.requests * activity.seconds == pytest.approx(3)
    assert activity.texts * activity.seconds == pytest.approx(9)
    assert activity.cache_hits == pytest.approx(3 / 9)
    assert activity.batch_texts is not None
    assert 1 <= activity.batch_texts <= 3
    assert activity.p50 is not None
    assert activity.p99 is not None
    assert 0 < activity.p50 <= activity.p99
    now = snapshot(metrics)
    idle = compare(now, now)
    assert (idle.requests, idle.texts, idle.p50, idle.cache_hits) == (0, 0, None, None)


def counts(**given: float) -> dict[str, float]:
    cache = ("cache_hits", "cache_disk_hits", "cache_joined", "cache_misses")
    return dict.fromkeys(("batches", "texts", "tokens", *cache), 0.0) | given


def test_activity_is_right_where_models_come_and_go() -> None:
    slow, fast = ([0] * (len(SECONDS) + 1) for _ in range(2))
    fast[SECONDS.index(1e-3)], slow[SECONDS.index(1.0)] = 90, 10
    before = Snapshot(
        10.0,
        {"a": list(fast)},
        {"a": counts(tokens=900, texts=90, batches=9), "gone": counts(tokens=5)},
        7,
    )
    now = Snapshot(
        12.0,
        {"a": [2 * each for each in fast], "b": slow},
        {
            "a": counts(tokens=40, texts=4, batches=1, cache_misses=4),  # loaded anew
            "b": counts(tokens=60, texts=8, batches=2, cache_misses=8, cache_joined=12),
        },
        3,
    )
    activity = compare(before, now)
    assert (activity.seconds, activity.requests, activity.waiting_tokens) == (2, 50, 3)
    assert (activity.tokens, activity.texts, activity.cache_hits) == (50, 12, 0.5)
    assert activity.batch_texts == 4
    assert activity.p50 is not None
    assert activity.p99 is not None
    assert 5e-4 < activity.p50 <= 1e-3
    assert 0.5 < activity.p99 <= 1.0


def test_the_stream_ends_when_the_page_goes() -> None:
    with serving("--backend", "numpy") as (url, _):
        with httpx2.stream("GET", f"{url}/v1/activity", timeout=30) as answer:
            assert next(answer.iter_lines())
        ended = 'embedsvc_requests_total{route="/v1/activity",status="200"} 1.0'
        assert any(ended in httpx2.get(f"{url}/metrics").text for _ in range(500))


def test_the_stream_tells_of_every_second_and_ends_when_the_server_does() -> None:
    with serving("--backend", "numpy") as (url, process):
        with httpx2.stream("GET", f"{url}/v1/activity", timeout=30) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = (line for line in answer.iter_lines() if line.startswith("data: "))
            first, second = (json.loads(next(lines).removeprefix("data: ")) for _ in range(2))
            assert first["activity"] is None
            assert second["activity"]["requests"] == 0
            assert first["instances"]["data"][0]["state"] == "ready"
            process.send_signal(signal.SIGTERM)
            assert len(list(lines)) <= 1  # it ends as an answer does, and is not cut
        assert process.wait(timeout=20) == 0  # and before requests in flight are given up
