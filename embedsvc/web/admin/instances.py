"""Instances: models that are loaded, or are being loaded or unloaded."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from embedsvc.catalog.cards import Task
from embedsvc.errors import BadRequest, CardsError
from embedsvc.serving.ad_hoc import find_or_make_card
from embedsvc.serving.instance import Instance, State
from embedsvc.serving.registry import Registry
from embedsvc.serving.reload import Changes, reload
from embedsvc.texts.requests import ModelName
from embedsvc.web.endpoint import Endpoint, JsonResponse, read_body
from embedsvc.web.events import Events
from embedsvc.web.openapi import Stream
from embedsvc.web.state import registry_of
from embedsvc.wording.quantities import read_keep_alive


class InstanceBody(msgspec.Struct):
    """What the body does not say is as the model's card or the server says."""

    model: ModelName
    keep_alive: Annotated[
        float | str | None,
        Meta(
            description='How long without requests: seconds, or "10m"; -1 is for ever, 0 at once.'
        ),
    ] = None
    pin: Annotated[bool | None, Meta(description="Whether it is only unloaded by request.")] = None


class ListQuery(msgspec.Struct):
    model: ModelName | msgspec.UnsetType = msgspec.UNSET


class Progress(msgspec.Struct):
    """Bytes of a download, or of the weights that are being read."""

    done: int
    total: int


class InstanceAnswer(msgspec.Struct):
    id: str
    object: Literal["instance"]
    model: str
    tasks: tuple[Task, ...]
    state: State
    error: str | None
    progress: Progress
    memory_bytes: int
    users: int
    pinned: bool
    keep_alive: float


class InstanceList(msgspec.Struct):
    object: Literal["list"]
    data: list[InstanceAnswer]
    memory_bytes: int
    max_memory_bytes: int


async def create_instance(request: Request) -> Response:
    """`POST /v1/instances`: begin to load a model, if it is not loaded; answers at once."""
    sent = await read_body(request, InstanceBody)
    registry = registry_of(request)
    try:
        keep_alive = None if sent.keep_alive is None else read_keep_alive(sent.keep_alive)
    except ValueError as error:
        raise BadRequest(f"Invalid 'keep_alive': {error}.", field="keep_alive") from None
    card = await find_or_make_card(registry, sent.model)
    return _answer(registry.start(card, keep_alive=keep_alive, pin=sent.pin))


async def list_instances(request: Request) -> Response:
    """`GET /v1/instances`: all instances, or those of one `model`, and the memory that all take."""
    registry = registry_of(request)
    answer = instances_answer(registry)
    model = request.query_params.get("model")
    if model is not None:
        card, _ = registry.card(model)
        answer.data = [instance for instance in answer.data if instance.model == card.id]
    return JsonResponse(msgspec.json.encode(answer))


async def get_instance(request: Request) -> Response:
    """`GET /v1/instances/{id}`: one instance."""
    return _answer(_named(request))


async def delete_instance(request: Request) -> Response:
    """`DELETE /v1/instances/{id}`: unload a model, once requests in flight are answered."""
    instance = _named(request)
    registry_of(request).unload(instance)
    return _answer(instance)


async def reload_cards(request: Request) -> Response:
    """`POST /v1/reload`: go by what the cards file says now."""
    try:
        changes = reload(registry_of(request))
    except CardsError as error:
        raise BadRequest(f"{error}. Nothing has changed.") from None
    return JsonResponse(msgspec.json.encode(changes))


async def watch_instance(request: Request) -> Response:
    """`GET /v1/instances/{id}/events`: the instance at every change, as server-sent events."""
    return Events(request, until_settled(_named(request)))


routes = [
    Endpoint("POST", "/v1/instances", create_instance, body=InstanceBody, answer=InstanceAnswer),
    Endpoint("GET", "/v1/instances", list_instances, query=ListQuery, answer=InstanceList),
    Endpoint("GET", "/v1/instances/{id}/events", watch_instance, answer=Stream(InstanceAnswer)),
    Endpoint("GET", "/v1/instances/{id}", get_instance, answer=InstanceAnswer),
    Endpoint("DELETE", "/v1/instances/{id}", delete_instance, answer=InstanceAnswer),
    Endpoint("POST", "/v1/reload", reload_cards, answer=Changes),
]


def instance_answer(instance: Instance) -> InstanceAnswer:
    """An instance as clients see it."""
    return InstanceAnswer(
        id=instance.id,
        object="instance",
        model=instance.card.id,
        tasks=instance.tasks,
        state=instance.state,
        error=str(instance.error) if instance.error else None,
        progress=Progress(*instance.progress),
        memory_bytes=instance.size,
        users=instance.users,
        pinned=instance.pinned,
        keep_alive=instance.keep_alive,
    )


def instances_answer(registry: Registry) -> InstanceList:
    """All instances as clients see them, and the memory that they take."""
    described = [instance_answer(instance) for instance in registry.instances()]
    return InstanceList("list", described, registry.memory.used, registry.memory.limit)


async def until_settled(instance: Instance) -> AsyncIterator[bytes]:
    """The instance at every change, until it is ready, or gone if it is being unloaded."""
    async for now in instance.changes():
        settled = now.state == "ready" and not now.closing  # before the yield: it may change there
        yield msgspec.json.encode(instance_answer(now))
        if settled:
            return


def _answer(instance: Instance) -> Response:
    return JsonResponse(msgspec.json.encode(instance_answer(instance)))


def _named(request: Request) -> Instance:
    return registry_of(request).instance(request.path_params["id"])
