"""The server's own app in replicas on several machines or devices, which Ray Serve runs.

serve run embedsvc.ray_serve:build num_gpus=1 max_replicas=8 models=/shared/models.toml
"""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import httpx2
import msgspec
from starlette.applications import Starlette

from embedsvc.errors import CardsError
from embedsvc.settings import Settings, read_settings
from embedsvc.web.app import create_app
from embedsvc.wording.msgspec_errors import plain_types

ONGOING = 256
"""How many requests a replica gets at a time. Forward passes are made of those that wait."""
HEALTH_SECONDS = 5.0
"""How often Ray Serve asks for a replica's health. It waits twice as long for the answer."""


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas there are, and what each of them has for itself."""

    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float = 32.0
    """How many requests a replica is to have. With more, Ray Serve starts another replica, up to
    `max_replicas`."""
    num_cpus: float = 1.0
    num_gpus: float = 0.0


class Replica:
    """One app on one device, in a process of its own."""

    def __init__(self, settings: Settings) -> None:
        self._app = create_app(settings)

    def __serve_build_asgi_app__(self) -> Starlette:
        return self._app

    async def check_health(self) -> None:
        """Ask `/ready`. Ray Serve calls this regularly, and replaces the replica if it raises."""
        transport = httpx2.ASGITransport(self._app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            (await client.get("/ready")).raise_for_status()


def application(settings: Settings, scale: Scale) -> Any:
    """What `ray.serve.run` runs. A replica that is stopped first answers the requests it has."""
    serve = import_module("ray.serve")
    cores = settings.cores or max(1, int(scale.num_cpus))
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="embedsvc",
        ray_actor_options={"num_cpus": scale.num_cpus, "num_gpus": scale.num_gpus},
        autoscaling_config={
            "min_replicas": scale.min_replicas,
            "max_replicas": scale.max_replicas,
            "target_ongoing_requests": scale.target_ongoing_requests,
        },
        max_ongoing_requests=ONGOING,
        health_check_period_s=HEALTH_SECONDS,
        health_check_timeout_s=2 * HEALTH_SECONDS,
        graceful_shutdown_timeout_s=settings.shutdown_seconds,
    )
    return deployment.bind(msgspec.structs.replace(settings, cores=cores))


def build(arguments: Mapping[str, Any]) -> Any:
    """The application, from names and values of `Scale` and of the server's settings.

    `serve run` and Ray Serve's config files call this. Raises `CardsError`.
    """
    known = {field.name for field in msgspec.structs.fields(Scale)}
    named = {field.name for field in msgspec.structs.fields(Settings)}
    for name in arguments:
        if name not in known | named:
            raise CardsError(f"{name}: there is {', '.join(sorted(known | named))}")
    scale = {name: value for name, value in arguments.items() if name in known}
    try:
        converted = msgspec.convert(scale, Scale, strict=False)
    except msgspec.ValidationError as error:
        raise CardsError(plain_types(str(error))) from None
    rest = {name: value for name, value in arguments.items() if name not in known}
    return application(read_settings(rest, os.environ), converted)
