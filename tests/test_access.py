"""Who may call, what browsers are told, and the headers and paths of every request."""

import socket
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from embedsvc.errors import CardsError
from embedsvc.settings import Settings
from embedsvc.web.access import Access, check_address, is_local, is_loopback
from embedsvc.web.app import create_app
from tests.support.app import serve

KEY = "sk-a-right-key-123456"
BODY = {"model": "embed", "input": "hello"}


def refusal(headers: dict[str, str], path: str = "/v1/embeddings", **settings: object) -> int:
    """The status a request is refused with; 0: it is not."""
    given = {name.encode(): value.encode() for name, value in headers.items()}
    refused = Access(Settings(**settings)).refusal(path, given)
    return refused.status if refused else 0


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY} "},
        {"api-key": KEY},
        {"x-api-key": KEY},
        {"authorization": "Bearer other", "api-key": KEY},  # some clients send both
        {"authorization": f"Bearer {KEY}", "api-key": "other"},
        {"authorization": "Bearer second"},
    ],
)
def test_a_key_is_taken_where_clients_put_it(headers: dict[str, str]) -> None:
    keys = (KEY, "second")
    assert refusal(headers, api_keys=keys) == 0
    foreign = {"host": "a.example", "origin": "https://b.example"}
    assert refusal(headers | foreign, api_keys=keys) == 0  # who has a key may come from anywhere


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer "},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"api-key": ""},
    ],
)
def test_anything_else_is_no_key(headers: dict[str, str]) -> None:
    assert refusal(headers, api_keys=(KEY,)) == 401


def test_health_needs_no_key_and_no_host() -> None:
    for path in ("/health", "/ready"):
        assert refusal({}, path, api_keys=(KEY,)) == 0
        assert refusal({"host": "10.1.2.3:8000"}, path) == 0


def test_keys_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\n\n  sk-one  \nsk-two\n")
    for key, status in (("sk-one", 0), ("sk-two", 0), ("# ours", 401), ("", 401)):
        assert refusal({"api-key": key}, api_keys_file=file) == status
    assert refusal({"api-key": "sk-three"}, api_keys_file=file, api_keys=("sk-three",)) == 0


@pytest.mark.parametrize(("content", "said"), [(None, "No such file"), ("# none\n", "has no key")])
def test_a_file_without_keys_is_no_open_door(
    tmp_path: Path, content: str | None, said: str
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(CardsError, match=said):
        create_app(Settings(api_keys_file=file))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 0),
        ("localhost:8000", 0),
        ("LOCALHOST:8000", 0),
        ("me.localhost", 0),
        ("127.0.0.1:8000", 0),
        ("127.1.2.3", 0),
        ("[::1]:8000", 0),
        ("", 0),
        ("rebound.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:8000", 403),
        ("192.168.1.5:8000", 403),
        ("evil@localhost.example", 403),
        ("[::1", 403),
        ("0.0.0.0:8000", 0),  # by which one's own machine is reached
        ("[::]:8000", 0),
        ("127.1:8000", 0),
        ("0x7f000001", 0),
        ("[::ffff:127.0.0.1]:8000", 0),
        ("203.0.113.9", 403),
        ("224.0.0.1", 403),
        ("[2001:db8::1]", 403),
        ("[fe80::1%25nowhere]:8000", 403),
        ("127.0.0.1.1", 403),
        ("0x7f.example", 403),
    ],
)
def test_without_keys_only_this_machines_names_are_answered_to(host: str, status: int) -> None:
    assert refusal({"host": host}) == status


def test_this_machines_addresses_are_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket:
        """Of a machine with three addresses, one of them known on its second interface alone."""

        def __init__(self, *_: object) -> None: ...
        def __enter__(self) -> "Socket":
            return self

        def __exit__(self, *_: object) -> None: ...
        def bind(self, place: tuple[object, ...]) -> None:
            mine = [("192.168.1.5", 0), ("fd00::2", 0, 0, 0), ("fe80::1", 0, 0, 2)]
            if place not in mine:
                raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr(socket, "socket", Socket)
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    for host in ("192.168.1.5", "192.168.1.5:8000", "[fd00::2]", "[fe80::1]", "[fe80::1%25eth0]:1"):
        assert refusal({"host": host}) == 0, host
    for host in ("192.168.1.6", "[fd00::3]:8000", "[fe80::2]", "192.168.1.5.evil.example"):
        assert refusal({"host": host}) == 403, host


def test_whether_an_address_is_of_this_machine_is_asked_of_the_machine() -> None:
    assert is_local(IPv4Address("127.0.0.1"))
    assert not is_local(IPv4Address("203.0.113.9"))
    assert not is_local(IPv6Address("2001:db8::1"))
    assert not is_local(IPv4Address("224.0.0.1"))


def test_more_hosts_may_be_allowed() -> None:
    hosts = ("box.lan", "10.0.0.5")
    for host in ("box.lan:8000", "10.0.0.5", "localhost"):
        assert refusal({"host": host}, allowed_hosts=hosts) == 0
    assert refusal({"host": "other.lan"}, allowed_hosts=hosts) == 403
    assert refusal({"host": "any.example"}, allowed_hosts=("*",)) == 0
    # What listens beyond the machine is called by its addresses; no DNS can make one another's.
    assert refusal({"host": "192.168.1.5:8000"}, host="0.0.0.0", insecure=True) == 0  # noqa: S104
    assert refusal({"host": "rebound.example"}, host="0.0.0.0", insecure=True) == 403  # noqa: S104


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 0),
        ("http://127.0.0.1", 0),
        ("app://obsidian.md", 0),
        ("chrome-extension://abcdef", 0),
        ("vscode-webview://abcdef", 0),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("null", 403),  # any page can have that
        ("http://203.0.113.9", 403),  # whoever has an address can serve a page there
        ("http://203.0.113.9:8000", 403),
        ("https://[2001:db8::1]", 403),
        ("HTTP://evil.example", 403),
        ("http://0.0.0.0:3000", 403),
        ("http://[::1", 403),
        ("http://", 403),
        ("http://localhost:99999", 0),
        ("http://[::1]:3000", 0),
        ("http://127.8.8.8:3000", 0),
    ],
)
@pytest.mark.parametrize("settings", [{}, {"host": "0.0.0.0", "insecure": True}])  # noqa: S104
def test_without_keys_pages_of_elsewhere_are_refused(
    origin: str, status: int, settings: dict[str, object]
) -> None:
    assert refusal({"host": "localhost", "origin": origin}, **settings) == status


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("192.168.1.5:8000", "http://192.168.1.5:8000", 0),
        ("192.168.1.5", "http://192.168.1.5", 0),
        ("192.168.1.5:80", "http://192.168.1.5", 0),
        ("192.168.1.5", "https://192.168.1.5:443", 0),  # TLS ends before it
        ("[2001:DB8::1]:8000", "http://[2001:db8::1]:8000", 0),
        ("192.168.1.5:8000", "http://192.168.1.5:3000", 403),  # another program's page there
        ("192.168.1.5:8000", "http://192.168.1.5", 403),
        ("192.168.1.5:8000", "http://192.168.1.6:8000", 403),
        ("evil.example", "http://evil.example", 403),  # a name that was rebound
        ("", "http://192.168.1.5", 403),
    ],
)
def test_a_server_s_own_pages_may_call_it(host: str, origin: str, status: int) -> None:
    headers = {"host": host, "origin": origin}
    assert refusal(headers, host="0.0.0.0", insecure=True) == status  # noqa: S104
    with_keys = refusal(headers | {"api-key": KEY}, api_keys=(KEY,), host="0.0.0.0")  # noqa: S104
    assert with_keys == 0


def test_what_a_message_repeats_is_bounded() -> None:
    access = Access(Settings())
    for headers in (
        {b"host": b"x" * 9000},
        {b"host": b"localhost", b"origin": b"http://" + b"x" * 9000},
    ):
        refused = access.refusal("/v1/models", headers)
        assert refused is not None
        assert len(refused.message) < 400


@pytest.mark.parametrize("name", ["host", "origin"])
def test_who_says_twice_where_he_goes_or_comes_from_is_refused(
    client: TestClient, name: str
) -> None:
    for values in (("localhost", "evil.example"), ("http://localhost", "http://localhost")):
        answer = client.get("/v1/models", headers=[(name, value) for value in values])
        assert answer.status_code == 400
        assert f"several headers '{name}'" in answer.json()["error"]["message"]
    others = [("accept", "a/b"), ("accept", "c/d"), ("x-forwarded-for", "a")]
    assert client.get("/v1/models", headers=others).status_code == 200


def test_more_origins_may_be_allowed() -> None:
    page = {"host": "localhost", "origin": "https://notes.example"}
    assert refusal(page, cors_origins=("https://notes.example",)) == 0
    assert refusal(page, cors_origins=("*",)) == 0
    assert refusal(page, allowed_hosts=("notes.example",)) == 0
    assert refusal(page, cors_origins=("https://other.example",)) == 403
    assert refusal(page | {"origin": "null"}, cors_origins=("null",)) == 0


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.1.5", "::", "::ffff:10.0.0.1"])  # noqa: S104
def test_listening_beyond_the_machine_without_keys_is_refused(address: str) -> None:
    with pytest.raises(CardsError, match=f"refusing to listen on {address} without keys"):
        check_address(address, Settings())
    check_address(address, Settings(insecure=True))
    check_address(address, Settings(api_keys=("k",)))
    check_address(address, Settings(api_keys_file=Path("keys")))


def test_listening_on_the_machine_needs_no_keys() -> None:
    for address in ("127.0.0.1", "127.9.9.9", "::1"):
        check_address(address, Settings())
        assert is_loopback(address)


def test_a_page_gets_an_answer_it_may_read(client: TestClient) -> None:
    origin = "http://localhost:3000"
    answer = client.post("/v1/embeddings", json=BODY, headers={"origin": origin})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in client.post("/v1/embeddings", json=BODY).headers


ASKED = "authorization,content-type,x-stainless-lang"


@pytest.mark.parametrize("settings", [{}, {"api_keys": (KEY,)}])
def test_a_browser_may_ask_first(cards_file: Path, settings: dict[str, object]) -> None:
    headers = {
        "origin": "http://localhost:3000",
        "access-control-request-method": "POST",
        "access-control-request-headers": ASKED,
        "access-control-request-private-network": "true",
    }
    with serve(models=cards_file, **settings) as client:
        for path in ("/v1/embeddings", "/v1/models", "/api/embed"):
            answer = client.options(path, headers=headers)  # it brings no key
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
            assert "POST" in answer.headers["access-control-allow-methods"]
            assert answer.headers["access-control-allow-headers"] == ASKED
            assert answer.headers["access-control-allow-private-network"] == "true"


def test_a_page_of_elsewhere_may_not_ask(cards_file: Path) -> None:
    headers = {
        "origin": "https://evil.example",
        "access-control-request-method": "POST",
        "access-control-request-private-network": "true",
    }
    with serve(models=cards_file, host="0.0.0.0", insecure=True) as client:  # noqa: S104
        answer = client.options(
            "/v1/embeddings", headers=headers | {"origin": "http://203.0.113.9"}
        )
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control-allow")]
    with serve(models=cards_file) as client:
        answer = client.options("/v1/embeddings", headers=headers)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    with serve(models=cards_file, api_keys=(KEY,)) as client:
        answer = client.options("/v1/embeddings", headers=headers)
        assert answer.headers["access-control-allow-origin"] == "https://evil.example"
        assert answer.headers["access-control-allow-private-network"] == "true"
    only = ("https://notes.example",)
    with serve(models=cards_file, api_keys=(KEY,), cors_origins=only) as client:
        answer = client.options("/v1/embeddings", headers=headers)
        assert "access-control-allow-origin" not in answer.headers
        assert "access-control-allow-private-network" not in answer.headers


def test_every_answer_says_what_openais_say(client: TestClient) -> None:
    answers = [client.post("/v1/embeddings", json=BODY), client.get("/v1/models")]
    for answer in answers:
        assert answer.headers["openai-version"] == "2020-10-01"
        assert int(answer.headers["openai-processing-ms"]) >= 0
        assert answer.headers["x-request-id"].startswith("req_")
    assert answers[0].headers["openai-model"] == "org/tiny"
    assert answers[0].headers["x-request-id"] != answers[1].headers["x-request-id"]


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [("my-id.1:2/3", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("", False)],
)
def test_a_clients_own_request_id_is_echoed_if_it_is_sane(
    client: TestClient, sent: str, echoed: bool
) -> None:
    answer = client.get("/health", headers={"x-request-id": sent})
    assert (answer.headers["x-request-id"] == sent) is echoed
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "path", ["/v1/embeddings/", "//v1/embeddings", "/v1//embeddings//", "/embeddings/"]
)
def test_slashes_too_many_are_overlooked_without_a_redirect(client: TestClient, path: str) -> None:
    answer = client.post(f"http://localhost{path}", json=BODY, follow_redirects=False)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/openai/deployments/org/tiny/embeddings?api-version=2024-02-01",
        "/openai/deployments/org%2Ftiny/embeddings?api-version=2024-02-01",
        "/v1/engines/org/tiny/embeddings",
    ],
)
def test_azures_paths_name_the_model_and_win(client: TestClient, path: str) -> None:
    for body in ({"input": "hello"}, {"input": "hello", "model": "text-embedding-ada-002"}):
        answer = client.post(path, json=body, headers={"api-key": "any"})
        assert answer.status_code == 200
        assert answer.json()["model"] == "org/tiny"


def test_models_are_found_at_every_base(client: TestClient) -> None:
    for base in ("/v1", "", "/openai/v1"):
        assert client.get(f"{base}/models").json() == client.get("/v1/models").json()
        assert client.get(f"{base}/models/org%2Ftiny").json()["id"] == "org/tiny"
