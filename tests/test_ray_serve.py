"""A replica of Ray Serve's, without Ray; extras/test_ray.py has the whole."""

import asyncio
from pathlib import Path

import httpx2
import pytest

from embedsvc.errors import CardsError
from embedsvc.ray_serve import Replica, build
from embedsvc.settings import Settings


def test_a_replica_is_healthy_while_ready_is_answered(
    cards_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        replica = Replica(Settings(models=cards_file, backend="numpy"))
        app = replica.__serve_build_asgi_app__()
        async with app.router.lifespan_context(app):
            await replica.check_health()

            async def trouble() -> str:
                return "the device does not answer"

            monkeypatch.setattr(app.state.watch, "trouble", trouble)
            with pytest.raises(httpx2.HTTPStatusError, match="503"):
                await replica.check_health()

    asyncio.run(main())


def test_what_is_not_known_is_refused_before_ray_is_needed() -> None:
    for wrong in ({"max_replica": 1}, {"max_replicas": "x"}):
        with pytest.raises(CardsError):
            build(wrong)
