"""Instances as the clients of exo know them.

exo answers a command before it is done. Its instances are spread over machines; here, each is on
one.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import uuid4

import msgspec
import orjson
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from embedsvc.catalog.cards import Card
from embedsvc.errors import BadRequest, SetupError
from embedsvc.serving.ad_hoc import find_or_make_card
from embedsvc.serving.instance import Instance
from embedsvc.serving.registry import Registry
from embedsvc.texts.requests import ModelName
from embedsvc.web.endpoint import Endpoint, JsonResponse, read_body
from embedsvc.web.events import Events
from embedsvc.web.openapi import Stream
from embedsvc.web.state import registry_of

MOST_SECONDS = 300.0
DEEPEST = 4
"""How many levels of objects are searched for the name of a model."""
RUNNER = {
    "downloading": "RunnerIdle",
    "loading": "RunnerLoading",
    "ready": "RunnerReady",
    "unloading": "RunnerShuttingDown",
    "unloaded": "RunnerShutdown",
    "failed": "RunnerFailed",
}
"""exo's names for the states of an instance."""


class PlaceBody(msgspec.Struct):
    """How exo spreads a model over machines (`sharding`, `min_nodes`, ...) changes nothing here."""

    model_id: ModelName


class AwaitQuery(msgspec.Struct):
    model_id: ModelName
    timeout_seconds: Annotated[float, Meta(ge=0, le=MOST_SECONDS)] = 0.0
    """0 is no limit."""


class ExoCreateBody(msgspec.Struct):
    """`instance` is as in exo's previews. Some clients send `model_id` in it, others alone."""

    instance: dict[str, Any] | None = None
    model_id: ModelName | None = None


class Command(msgspec.Struct):
    """A command that was taken, and is being carried out."""

    message: str
    command_id: str
    instance_id: str
    model_card: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


async def create_instance(request: Request) -> Response:
    """`POST /instance`: load a model."""
    sent = await read_body(request, ExoCreateBody)
    if sent.model_id:
        return await _place(request, sent.model_id)
    model = _model_in(sent.instance)
    if model is None:
        raise BadRequest("Invalid 'instance': it names no model.")
    return await _place(request, model, field="instance")


async def place_instance(request: Request) -> Response:
    """`POST /place_instance`: load a model."""
    return await _place(request, (await read_body(request, PlaceBody)).model_id)


async def get_instance(request: Request) -> Response:
    """`GET /instance/{id}`: an instance."""
    return JsonResponse(orjson.dumps(_describe(_named(request))))


async def delete_instance(request: Request) -> Response:
    """`DELETE /instance/{id}`: unload a model."""
    instance = _named(request)
    registry_of(request).unload(instance)
    return _commanded(instance)


async def await_instance(request: Request) -> Response:
    """`GET /instance/await`: one event, when a model is ready, or was not in time."""
    model = request.query_params.get("model_id")
    if not model:
        raise BadRequest("Missing required parameter: 'model_id'.")
    try:
        seconds = float(request.query_params.get("timeout_seconds", "0"))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MOST_SECONDS:
        raise BadRequest(f"Invalid 'timeout_seconds': 0 to {MOST_SECONDS:g}, 0 is no limit.")
    registry = registry_of(request)
    card, _ = registry.card(model, field="model_id")
    return Events(request, _ready(registry, card, seconds))


async def state(request: Request) -> Response:
    """`GET /state`: all instances, and the state of each."""
    instances = registry_of(request).instances()
    answer = {
        "instances": {each.id: _describe(each) for each in instances},
        "runners": {each.id: {RUNNER[each.state]: _failure(each)} for each in instances},
    }
    return JsonResponse(orjson.dumps(answer))


routes = [
    Endpoint("POST", "/instance", create_instance, body=ExoCreateBody, answer=Command),
    Endpoint("POST", "/place_instance", place_instance, body=PlaceBody, answer=Command),
    Endpoint(
        "GET", "/instance/await", await_instance, query=AwaitQuery, answer=Stream(dict[str, Any])
    ),
    Endpoint("GET", "/instance/{id:uuid}", get_instance, answer=dict[str, Any]),
    Endpoint("DELETE", "/instance/{id:uuid}", delete_instance, answer=Command),
    Endpoint("GET", "/state", state, answer=dict[str, Any]),
]


def _model_in(instance: dict[str, Any] | None) -> str | None:
    """The name of the model in an instance of exo's, if there is one.

    >>> _model_in({"MlxRingInstance": {"shardAssignments": {"modelId": "bge-m3"}}})
    'bge-m3'
    """
    level: list[dict[str, Any]] = [instance or {}]
    for _ in range(DEEPEST):
        inner: list[dict[str, Any]] = []
        for each in level:
            for key in ("model_id", "modelId"):
                if isinstance(each.get(key), str):
                    return each[key]
            inner += [inside for inside in each.values() if isinstance(inside, dict)]
        level = inner
    return None


async def _place(request: Request, model: str, field: str = "model_id") -> Response:
    registry = registry_of(request)
    card = await find_or_make_card(registry, model, field=field)
    return _commanded(registry.start(card), card)


def _commanded(instance: Instance, card: Card | None = None) -> Response:
    command = Command("Command received.", str(uuid4()), instance.id)
    if card is not None:
        command.model_card = {"model_id": card.id}
    return JsonResponse(msgspec.json.encode(command))


async def _ready(registry: Registry, card: Card, seconds: float) -> AsyncIterator[bytes]:
    try:
        async with asyncio.timeout(seconds or None):
            instance = await registry.appearance(card)
            await instance.loaded()
        message = {"type": "ready", "instance": _describe(instance)}
    except TimeoutError:
        late = f"No instance of {card.id} was ready within {seconds:g} seconds."
        message = {"type": "timeout", "message": late}
    except SetupError as error:
        message = {"type": "timeout", "message": str(error)}
    yield orjson.dumps(message)


def _describe(instance: Instance) -> dict[str, Any]:
    assigned: dict[str, Any] = {"modelId": instance.card.id, "runnerToShard": {}}
    inside = {"instanceId": instance.id, "shardAssignments": assigned}
    return {"MlxRingInstance": inside}


def _failure(instance: Instance) -> dict[str, str]:
    return {"errorMessage": str(instance.error)} if instance.error else {}


def _named(request: Request) -> Instance:
    return registry_of(request).instance(str(request.path_params["id"]))
