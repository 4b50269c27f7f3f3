"""Instances as the clients of exo know them.

exo answers a command before it is done. Its instances are spread over machines; here, each is on
one, and there is one of a model.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID, uuid4

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from embedsvc.catalog.cards import Card
from embedsvc.errors import BadRequest, SetupError
from embedsvc.serving.ad_hoc import find_or_make_card
from embedsvc.serving.instance import Instance
from embedsvc.serving.outline import Outline
from embedsvc.serving.registry import Registry
from embedsvc.texts.requests import ModelName
from embedsvc.web.dialects.exo_node import Node, node_of
from embedsvc.web.dialects.exo_placement import (
    PlacementQuery,
    find_model,
    is_loaded,
    place,
    previews,
)
from embedsvc.web.dialects.exo_schema import (
    Command,
    PlacementPreviews,
    by_name,
    tagged,
)
from embedsvc.web.endpoint import Endpoint, JsonResponse, read_body, read_query
from embedsvc.web.events import Events
from embedsvc.web.openapi import Stream
from embedsvc.web.state import registry_of

MOST_SECONDS = 300.0
DEEPEST = 4
"""How many levels of objects are searched for the names of a model and an instance."""
RECEIVED = "Command received."
NO_CARD = "Failed to load model card"
GIB = 1 << 30


class PlaceBody(msgspec.Struct):
    """How exo spreads a model over machines (`sharding`, `min_nodes`, ...) changes nothing here."""

    model_id: ModelName


class AwaitQuery(msgspec.Struct):
    model_id: ModelName
    timeout_seconds: Annotated[float, Meta(ge=0, le=MOST_SECONDS)] = 0.0
    """0 is no limit."""


class PreviewsQuery(msgspec.Struct):
    """`node_ids` may be given several times."""

    model_id: ModelName
    node_ids: str | msgspec.UnsetType = msgspec.UNSET


class ExoCreateBody(msgspec.Struct):
    """`instance` is as in exo's previews. Some clients send `model_id` in it, others alone."""

    instance: dict[str, Any] | None = None
    model_id: ModelName | None = None


async def create_instance(request: Request) -> Response:
    """`POST /instance`: load a model; its new instance gets the id that is sent."""
    sent = await read_body(request, ExoCreateBody)
    model, place_of_name = sent.model_id, "model_id"
    if not model:
        model, place_of_name = _inside(sent.instance, "model_id", "modelId"), "instance"
        if model is None:
            raise BadRequest("Invalid 'instance': it names no model.", field="instance")
    node = node_of(request)
    card = await find_or_make_card(node.registry, model, field=place_of_name)
    outline = await _outline(node.registry, card)
    if outline.size > node.available and is_loaded(node, card) is None:
        required, available = outline.size / GIB, node.available / GIB
        raise BadRequest(
            f"Insufficient memory to create instance. Required: {required:.1f}GB, "
            f"Available: {available:.1f}GB"
        )
    return _placed(node, card, outline, _identity(node.registry, card, sent.instance))


async def place_instance(request: Request) -> Response:
    """`POST /place_instance`: load a model."""
    sent = await read_body(request, PlaceBody)
    node = node_of(request)
    card = await find_or_make_card(node.registry, sent.model_id, field="model_id")
    return _placed(node, card, await _outline(node.registry, card))


async def get_placement(request: Request) -> Response:
    """`GET /instance/placement`: the instance that a model would have, for `POST /instance`."""
    asked = read_query(request, PlacementQuery)
    node = node_of(request)
    model = await find_model(node.registry, asked.model_id, NO_CARD)
    instance = place(node, model, asked.sharding, asked.instance_meta, asked.min_nodes)
    return _answer(tagged(instance))


async def get_previews(request: Request) -> Response:
    """`GET /instance/previews`: each way to place a model, with the memory it takes, or why not."""
    asked = read_query(request, PreviewsQuery)
    node = node_of(request)
    model = await find_model(node.registry, asked.model_id, NO_CARD)
    node_ids = frozenset(request.query_params.getlist("node_ids"))
    return _answer(PlacementPreviews(previews(node, model, node_ids)))


async def get_instance(request: Request) -> Response:
    """`GET /instance/{id}`: an instance."""
    return _answer(node_of(request).described(_named(request)))


async def delete_instance(request: Request) -> Response:
    """`DELETE /instance/{id}`: unload a model."""
    instance = _named(request)
    registry_of(request).unload(instance)
    return _answer(Command(RECEIVED, str(uuid4()), instance.id))


async def await_instance(request: Request) -> Response:
    """`GET /instance/await`: one event, when a model is ready, or was not in time."""
    asked = read_query(request, AwaitQuery)
    node = node_of(request)
    card, _ = node.registry.card(asked.model_id, field="model_id")
    return Events(request, _ready(node, card, asked.timeout_seconds))


routes = [
    Endpoint("POST", "/instance", create_instance, body=ExoCreateBody, answer=Command),
    Endpoint("POST", "/place_instance", place_instance, body=PlaceBody, answer=Command),
    Endpoint(
        "GET", "/instance/placement", get_placement, query=PlacementQuery, answer=dict[str, Any]
    ),
    Endpoint(
        "GET", "/instance/previews", get_previews, query=PreviewsQuery, answer=PlacementPreviews
    ),
    Endpoint(
        "GET", "/instance/await", await_instance, query=AwaitQuery, answer=Stream(dict[str, Any])
    ),
    Endpoint("GET", "/instance/{id:uuid}", get_instance, answer=dict[str, Any]),
    Endpoint("DELETE", "/instance/{id:uuid}", delete_instance, answer=Command),
]


def _inside(instance: dict[str, Any] | None, *keys: str) -> str | None:
    """The first text under one of these keys in an instance of exo's, if there is one.

    >>> sent = {"MlxRingInstance": {"instanceId": "7", "shardAssignments": {"modelId": "bge-m3"}}}
    >>> _inside(sent, "modelId"), _inside(sent, "instanceId")
    ('bge-m3', '7')
    """
    level: list[dict[str, Any]] = [instance or {}]
    for _ in range(DEEPEST):
        inner: list[dict[str, Any]] = []
        for each in level:
            for key in keys:
                if isinstance(each.get(key), str):
                    return each[key]
            inner += [inside for inside in each.values() if isinstance(inside, dict)]
        level = inner
    return None


def _identity(registry: Registry, card: Card, instance: dict[str, Any] | None) -> str | None:
    """The id that the instance is to have; None if any will do.

    Clients wait for an instance of the id that a preview had.
    """
    sent = _inside(instance, "instance_id", "instanceId")
    if not sent:
        return None
    try:
        identity = str(UUID(sent))
    except ValueError:
        raise BadRequest("Invalid 'instance': its id must be a UUID.", field="instance") from None
    taken = [each for each in registry.instances() if each.id == identity]
    if any(each.card.id != card.id or (each.closing and not each.over) for each in taken):
        raise BadRequest("Invalid 'instance': another instance has its id.", field="instance")
    return identity


def _placed(node: Node, card: Card, outline: Outline, identity: str | None = None) -> Response:
    instance = node.registry.start(card, identity=identity)
    described = node.model_card(card, outline)
    return _answer(Command(RECEIVED, str(uuid4()), instance.id, described))


async def _outline(registry: Registry, card: Card) -> Outline:
    """The outline of a model that is about to be loaded. If its files are not here, or not right,
    it is empty: its instance says why."""
    try:
        return await registry.outlines.find(card)
    except SetupError:
        return Outline()


async def _ready(node: Node, card: Card, seconds: float) -> AsyncIterator[bytes]:
    try:
        async with asyncio.timeout(seconds or None):
            instance = await node.registry.appearance(card)
            await instance.loaded()
        message: dict[str, Any] = {
            "type": "ready",
            "instance": by_name(node.described(instance)),
        }
    except TimeoutError:
        late = f"No instance of {card.id} was ready within {seconds:g} seconds."
        message = {"type": "timeout", "message": late}
    except SetupError as error:
        message = {"type": "timeout", "message": str(error)}
    yield msgspec.json.encode(message)


def _named(request: Request) -> Instance:
    return registry_of(request).instance(str(request.path_params["id"]))


def _answer(value: Any) -> Response:
    return JsonResponse(msgspec.json.encode(value))
