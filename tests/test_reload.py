"""The cards file applied anew: nothing is dropped, and a file with a mistake changes nothing."""

import asyncio
import signal
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from embedsvc.errors import CardsError, ModelNotFound
from embedsvc.serving.ad_hoc import find_or_make_card
from embedsvc.serving.reload import Changes, reload
from tests.support.app import serve
from tests.support.server import serving
from tests.support.tiny_registry import become, open_registry, write_cards


def test_what_is_other_in_the_file_is_told_and_holds(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            for name in "abc":
                await registry.load(name)
            ids = {each.card.id: each.id for each in registry.instances()}
            write_cards(
                tmp_path, "abd", a="aliases = ['first']\nkeep_alive = 60", b="max_tokens = 9"
            )
            assert reload(registry) == Changes(["d"], ["a", "b"], ["c"])
            a = registry.instance(ids["a"])
            assert (a.state, a.keep_alive, a.closing) == ("ready", 60.0, False)
            async with registry.use("b") as engine:
                assert engine.checkpoint.max_tokens == 9
            assert (await registry.embed("first")).shape == (1, 16)
            assert (await registry.embed("d")).shape == (1, 16)
            with pytest.raises(ModelNotFound):
                await registry.embed("c")
            assert registry.loader.loads == ["a", "b", "c", "b", "d"]
            assert set(registry.states()) == {"a", "b", "d"}

    asyncio.run(main())


def test_requests_in_flight_are_answered_by_the_model_they_came_for(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            async with registry.use("a") as engine:
                (old,) = registry.instances()
                write_cards(tmp_path, a="pooling = 'cls'")
                reload(registry)
                await become(old, "unloading")
                assert engine.checkpoint.pooling == ("mean",)
                assert (await engine.embed(["still the old one"])).vectors.shape == (1, 16)
                async with registry.use("a") as new:
                    assert new.checkpoint.pooling == ("cls",)
            await become(old, "unloaded")

    asyncio.run(main())


def test_a_reload_loads_what_is_to_be_preloaded_and_keeps_what_has_no_card(tmp_path: Path) -> None:
    write_cards(tmp_path)

    async def main() -> None:
        async with open_registry(tmp_path, allow_ad_hoc=True) as registry:
            (tmp_path / "b").mkdir()
            for name in ("./tiny", "./b/../tiny"):
                await registry.start(await find_or_make_card(registry, name)).loaded()
            write_cards(tmp_path, b="preload = true")
            assert reload(registry) == Changes([], ["b"], [])
            assert (await registry.appearance(registry.named("b"))).state != "failed"
            for name in ("./tiny", "./b/../tiny"):
                assert (await registry.embed(name)).shape == (1, 16)
            assert registry.loader.loads.count("./tiny") == 1
            write_cards(tmp_path, a="aliases = ['./b/../tiny']")
            reload(registry)
            assert registry.card("./b/../tiny")[0].id == "a"  # what is in the file is the file's
            assert (await registry.embed("./tiny")).shape == (1, 16)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models.a", "models.toml, line 1: Expected"),
        ("[models.a]\npath = 'tiny'\nx = 1\n", "unknown key `x`"),
        ("", "no card"),
        (None, "No such file"),
    ],
)
def test_a_file_with_a_mistake_changes_nothing(tmp_path: Path, text: str | None, said: str) -> None:
    write_cards(tmp_path)
    file = tmp_path / "models.toml"

    async def main() -> None:
        async with open_registry(tmp_path) as registry:
            instance, cards = await registry.load("a"), registry.cards
            file.unlink()
            if text is not None:
                file.write_text(text)
            with pytest.raises(CardsError, match=said):
                reload(registry)
            assert registry.cards is cards
            assert instance.state == "ready"
            assert not instance.closing

    asyncio.run(main())


def test_over_http_it_says_what_changed_or_what_is_wrong(tmp_path: Path) -> None:
    write_cards(tmp_path)
    with serve(models=tmp_path / "models.toml") as client:
        assert client.post("/v1/reload").json() == {"added": [], "changed": [], "removed": []}
        write_cards(tmp_path, "abcd")
        assert client.post("/v1/reload").json()["added"] == ["d"]
        (tmp_path / "models.toml").write_text("[models.a]\n")
        answer = client.post("/v1/reload")
        assert answer.status_code == 400
        said = answer.json()["error"]["message"]
        assert "needs one of `path`" in said
        assert said.endswith("Nothing has changed.")
        assert names(client) == ["a", "b", "c", "d"]


def names(client: TestClient) -> list[str]:
    return [model["id"] for model in client.get("/v1/models").json()["data"]]


def test_sighup_reloads_without_dropping_a_request(tmp_path: Path) -> None:
    write_cards(tmp_path)
    with serving("--backend", "numpy", cards=tmp_path / "models.toml") as (url, process):

        async def main() -> list[int]:
            async with httpx2.AsyncClient(base_url=url, timeout=20) as client:

                async def embed(number: int) -> int:
                    body = {"model": "a", "input": f"{'hello ' * (number % 20)} {number}"}
                    if number % 20 == 10:
                        about = "pooling = 'cls'" if number % 40 == 10 else "pooling = 'max'"
                        write_cards(tmp_path, "abcd", a=about)
                        process.send_signal(signal.SIGHUP)
                    return (await client.post("/v1/embeddings", json=body)).status_code

                found = await asyncio.gather(*map(embed, range(100)))
                for _ in range(1000):  # a signal is seen soon after it was sent
                    if (await client.get("/v1/models/d")).status_code == 200:
                        return found
                pytest.fail("it was not reloaded")

        assert asyncio.run(main()) == [200] * 100
        assert process.poll() is None
