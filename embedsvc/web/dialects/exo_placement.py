"""Where a model would go, in exo's words: onto this node, or nowhere."""

from typing import Annotated, Literal, NamedTuple
from uuid import uuid4

import msgspec
from msgspec import Meta

from embedsvc.catalog.cards import Card
from embedsvc.errors import BadRequest, ModelNotFound, SetupError
from embedsvc.serving.ad_hoc import look_for_card
from embedsvc.serving.outline import Outline
from embedsvc.serving.registry import Registry
from embedsvc.texts.requests import ModelName
from embedsvc.web.dialects.exo_node import Node
from embedsvc.web.dialects.exo_schema import MlxRingInstance, PlacementPreview, tagged

Sharding = Literal["Pipeline", "Tensor"]
InstanceMeta = Literal["MlxRing", "MlxJaccl"]
WAYS: tuple[tuple[Sharding, InstanceMeta], ...] = (
    ("Pipeline", "MlxRing"),
    ("Pipeline", "MlxJaccl"),
    ("Tensor", "MlxRing"),
    ("Tensor", "MlxJaccl"),
)
"""The ways to spread a model over machines, in the order in which exo tries them."""


class PlacementQuery(msgspec.Struct):
    """How exo is to spread a model over machines. One machine has one way."""

    model_id: ModelName
    sharding: Sharding = "Pipeline"
    instance_meta: InstanceMeta = "MlxRing"
    min_nodes: Annotated[int, Meta(ge=1)] = 1


class Model(NamedTuple):
    """A model that may be placed."""

    card: Card
    outline: Outline


async def find_model(registry: Registry, name: str, failing: str) -> Model:
    """A model that a client asks about; the hub is asked for what is not here.

    Raises `BadRequest` that begins with exo's words for what is `failing`.
    """
    try:
        card = await look_for_card(registry, name, field="model_id")
        return Model(card, await registry.outlines.find(card, ask_hub=True))
    except (ModelNotFound, SetupError) as error:
        raise BadRequest(f"{failing}: {error}", field="model_id") from None


def place(
    node: Node,
    model: Model,
    sharding: Sharding = "Pipeline",
    instance_meta: InstanceMeta = "MlxRing",
    min_nodes: int = 1,
    node_ids: frozenset[str] = frozenset(),
) -> MlxRingInstance:
    """The instance that the model would have; the one it has, if it is loaded.

    `node_ids` are nodes that have to be part of it. Raises `BadRequest` in the words and for the
    reasons that exo has on one node.
    """
    loaded = is_loaded(node, model.card)
    fits = loaded is not None or model.outline.size <= node.available
    if min_nodes > 1 or node_ids - {node.id} or not fits:
        raise BadRequest("No cycles found with sufficient memory")
    name = model.card.id
    if sharding == "Tensor":
        raise BadRequest(
            "Requested Tensor sharding but this model does not support tensor parallelism: " + name
        )
    if instance_meta == "MlxJaccl":
        if "MlxMetal" not in node.backends:
            raise BadRequest(
                f"No cycle where every node supports a backend in ['MlxMetal'] for {name}"
            )
        raise BadRequest("Requested RDMA (MlxJaccl) but no RDMA-connected cycles available")
    return node.instance(loaded or str(uuid4()), model.card, model.outline)


def previews(node: Node, model: Model, node_ids: frozenset[str]) -> list[PlacementPreview]:
    """The placements of a model, and of the other ways to place it, why there are none."""
    found: list[PlacementPreview] = []
    for sharding, meta in WAYS:
        preview = PlacementPreview(model.card.id, sharding, meta)
        try:
            preview.instance = tagged(place(node, model, sharding, meta, node_ids=node_ids))
            more = 0 if is_loaded(node, model.card) else model.outline.size
            preview.memory_delta_by_node = {node.id: more}
        except BadRequest as error:
            preview.error = error.message
        found.append(preview)
    return found


def is_loaded(node: Node, card: Card) -> str | None:
    """The id of the card's instance that takes requests, or will."""
    for instance in node.registry.instances():
        if instance.card.id == card.id and not (instance.closing or instance.over):
            return instance.id
    return None
