"""What exo's dashboard and tools ask of a node beside its instances: its state, its models."""

from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from embedsvc.errors import NotThere
from embedsvc.serving.ad_hoc import find_or_make_card
from embedsvc.texts.requests import ModelName
from embedsvc.web.dialects.exo_node import node_of
from embedsvc.web.dialects.exo_placement import find_model
from embedsvc.web.dialects.exo_schema import State
from embedsvc.web.dialects.openai import model_answer
from embedsvc.web.dialects.openai_schema import Model
from embedsvc.web.endpoint import Endpoint, JsonResponse, read_body
from embedsvc.web.state import registry_of
from embedsvc.wording.plain import shown


class AddModelBody(msgspec.Struct):
    model_id: ModelName


class ModelDeleted(msgspec.Struct):
    message: str
    model_id: str


class Onboarding(msgspec.Struct):
    """Whether exo's dashboard may leave out its tour, which ends with a chat."""

    completed: Literal[True] = True


class FeatureFlags(msgspec.Struct):
    """What exo can do only with several machines."""

    disaggregation: Literal[False] = False


async def get_node_id(request: Request) -> Response:
    """`GET /node_id`: this node's id, another one after each start."""
    return _answer(node_of(request).id)


async def get_state(request: Request) -> Response:
    """`GET /state`: all instances, the state of each, and what the node has."""
    return _answer(node_of(request).state())


async def get_part_of_state(request: Request) -> Response:
    """`GET /state/{path}`: one value of it, as /state/instances/ID."""
    path: str = request.path_params["path"]
    value: Any = msgspec.to_builtins(node_of(request).state())
    try:
        for part in filter(None, path.split("/")):
            value = value[int(part) if isinstance(value, list) else part]
    except (LookupError, TypeError, ValueError):
        where = shown(path.replace("/", "."))
        raise NotThere(f"unable to find path '{where}' in state json") from None
    return _answer(value)


async def get_events(request: Request) -> Response:
    """`GET /events`: what has happened, as far as it can be told from the state."""
    return _answer(node_of(request).events())


async def add_model(request: Request) -> Response:
    """`POST /models/add`: have a repository, or a folder, among the models, if that is allowed."""
    name = (await read_body(request, AddModelBody)).model_id
    registry = registry_of(request)
    await find_model(registry, name, "Failed to fetch model")
    card = await find_or_make_card(registry, name, field="model_id")
    return _answer(model_answer(request, card.id))


async def delete_model(request: Request) -> Response:
    """`DELETE /models/custom/{id}`: forget a model that a client added; its files stay."""
    registry = registry_of(request)
    card, _ = registry.card(request.path_params["id"], field="model_id")
    if not card.ad_hoc:
        raise NotThere("Custom model card not found")
    for instance in registry.instances():
        if instance.card.id == card.id:
            registry.unload(instance)
    registry.forget(card)
    return _answer(ModelDeleted("Model card deleted", card.id))


async def get_feature_flags(_request: Request) -> Response:
    """`GET /v1/feature-flags`: what exo can do only with several machines."""
    return _answer(FeatureFlags())


async def get_instance_links(_request: Request) -> Response:
    """`GET /v1/instance-links`: none, on one machine."""
    return _answer(list[str]())


async def get_onboarding(_request: Request) -> Response:
    """`GET /onboarding`: that exo's dashboard needs no tour."""
    return _answer(Onboarding())


routes = [
    Endpoint("GET", "/node_id", get_node_id, answer=str),
    Endpoint("GET", "/state", get_state, answer=State),
    Endpoint("GET", "/state/{path:path}", get_part_of_state, answer=Any),
    Endpoint("GET", "/events", get_events, answer=list[dict[str, Any]]),
    Endpoint("POST", "/models/add", add_model, body=AddModelBody, answer=Model),
    Endpoint("DELETE", "/models/custom/{id:path}", delete_model, answer=ModelDeleted),
    Endpoint("GET", "/v1/feature-flags", get_feature_flags, answer=FeatureFlags),
    Endpoint("GET", "/v1/instance-links", get_instance_links, answer=list[str]),
    Endpoint("GET", "/onboarding", get_onboarding, answer=Onboarding),
]


def _answer(value: Any) -> Response:
    return JsonResponse(msgspec.json.encode(value))
