"""Who may call: keys, the host names that are answered to, and pages of elsewhere."""

import socket
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from embedsvc.errors import CardsError
from embedsvc.settings import Settings
from embedsvc.web.access import Access, check_address, is_local, is_loopback
from embedsvc.web.app import create_app

KEY = "sk-a-right-key-123456"


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
