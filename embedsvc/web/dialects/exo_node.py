"""This server as exo's clients see it: a cluster of one node, with one runner for each instance."""

import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import NAMESPACE_OID, uuid5

import msgspec
from starlette.requests import Request

from embedsvc.catalog.cards import Card
from embedsvc.serving.instance import Instance
from embedsvc.serving.outline import Outline
from embedsvc.serving.registry import Registry
from embedsvc.web.dialects.exo_schema import (
    Backend,
    Download,
    DownloadCompleted,
    DownloadFailed,
    DownloadOngoing,
    DownloadProgressData,
    Exo,
    Host,
    Memory,
    MemoryUsage,
    MlxRingInstance,
    ModelCard,
    NodeIdentity,
    PipelineShardMetadata,
    RunnerFailed,
    RunnerIdle,
    RunnerLoading,
    RunnerReady,
    RunnerShutdown,
    RunnerShuttingDown,
    ShardAssignments,
    State,
    Tagged,
    TopologySnapshot,
    by_name,
    tagged,
)
from embedsvc.web.dialects.openai_schema import CAPABILITIES
from embedsvc.web.state import state_of


def node_of(request: Request) -> "Node":
    """The node that a request came to."""
    state = state_of(request)
    return Node(state.node_id, state.settings.port, state.registry)


class Node(NamedTuple):
    """The node, for the time of one request."""

    id: str
    port: int
    """The one that this server was told to listen on."""
    registry: Registry

    @property
    def backends(self) -> list[Backend]:
        """What exo calls the backends that are here. To it, each node has MLX's for CPUs."""
        ops = self.registry.device.ops
        if ops.name != "mlx" or ops.device.endswith("CPU"):
            return ["MlxCpu"]
        return ["MlxCpu", "MlxMetal" if sys.platform == "darwin" else "MlxCuda"]

    @property
    def available(self) -> int:
        """Bytes of memory that a model can get, if all others make room that may."""
        pinned = sum(each.size for each in self.registry.instances() if each.pinned)
        return max(0, self.registry.memory.limit - pinned)

    def instances(self) -> dict[str, Tagged]:
        """The instances, by id."""
        return {each.id: self.described(each) for each in self.registry.instances()}

    def instance(self, identity: str, card: Card, outline: Outline) -> MlxRingInstance:
        """An instance of that id, whether there is one or not. Its runner has the same id."""
        shard = self.shard(card, outline)
        return MlxRingInstance(
            instance_id=identity,
            shard_assignments=ShardAssignments(
                model_id=card.id,
                runner_to_shard={identity: tagged(shard)},
                node_to_runner={self.id: identity},
            ),
            hosts_by_node={self.id: [Host(ip="0.0.0.0", port=self.port)]},  # noqa: S104 - as exo's
            ephemeral_port=self.port,
        )

    def described(self, instance: Instance) -> Tagged:
        """One instance."""
        return tagged(self.instance(instance.id, instance.card, self._outline(instance)))

    def shard(self, card: Card, outline: Outline) -> PipelineShardMetadata:
        """All of a model's layers."""
        described = self.model_card(card, outline)
        layers = described.n_layers
        return PipelineShardMetadata(model_card=described, end_layer=layers, n_layers=layers)

    def model_card(self, card: Card, outline: Outline) -> ModelCard:
        """A card. exo takes no 0 for layers and sizes, so that there what is not known is 1."""
        return ModelCard(
            model_id=card.id,
            storage_size=Memory(in_bytes=outline.stored),
            n_layers=outline.layers or 1,
            hidden_size=outline.hidden_size or 1,
            num_key_value_heads=outline.key_value_heads or None,
            family=outline.model_type,
            quantization=outline.quantization,
            capabilities=[CAPABILITIES[task] for task in self.registry.tasks(card)],
            context_length=outline.max_tokens,
            is_custom=card.ad_hoc,
        )

    def state(self) -> State:
        """All that exo's clients may know."""
        registry, downloads = self.registry, self._downloads()
        custom = registry.cards.ad_hoc.values()
        return State(
            instances=self.instances(),
            runners={each.id: tagged(self._runner(each)) for each in registry.instances()},
            downloads={self.id: downloads} if downloads else {},
            last_seen={self.id: _now()},
            topology=TopologySnapshot(nodes=[self.id]),
            last_event_applied_idx=sum(1 for _ in self._history()) - 1,
            node_identities={self.id: self._identity()},
            node_memory={self.id: self._memory()},
            node_backends={self.id: self.backends},
            custom_model_cards={each.id: self._card_known(each) for each in custom},
        )

    def events(self) -> list[Any]:
        """The shortest history that leads to the state as it is, in the fields' own names.

        exo keeps its whole history; this server keeps none. An event of the same content has the
        same id whenever somebody asks.
        """
        return [_event(kind, by_name(about)) for kind, about in self._history()]

    def _history(self) -> Iterator[tuple[str, dict[str, Any]]]:
        identity = self._identity()
        static = {
            "model": identity.model_id,
            "chip": identity.chip_id,
            "os_version": identity.os_version,
            "os_build_version": identity.os_build_version,
        }
        for info in (
            {"StaticNodeInformation": static},
            {"MiscData": {"friendly_name": identity.friendly_name}},
            self._memory(),
            {"NodeBackends": {"backends": self.backends}},
        ):
            yield "NodeGatheredInfo", {"node_id": self.id, "when": _now(), "info": info}
        for card in self.registry.cards.ad_hoc.values():
            yield "CustomModelCardAdded", {"model_card": self._card_known(card)}
        for instance in self.instances().values():
            yield "InstanceCreated", {"instance": instance}
        for progress in self._downloads():
            yield "NodeDownloadProgress", {"download_progress": progress}
        for instance in self.registry.instances():
            status = tagged(self._runner(instance))
            yield "RunnerStatusUpdated", {"runner_id": instance.id, "runner_status": status}

    def _outline(self, instance: Instance) -> Outline:
        known = instance.outline or self.registry.outlines.known(instance.card)
        return known or Outline(stored=instance.progress[1])

    def _card_known(self, card: Card) -> ModelCard:
        return self.model_card(card, self.registry.outlines.known(card) or Outline())

    def _identity(self) -> NodeIdentity:
        system = platform.mac_ver()[0] or platform.system() or "Unknown"
        return NodeIdentity(chip_id=self.registry.device.ops.device, os_version=system)

    def _memory(self) -> MemoryUsage:
        total = Memory(in_bytes=self.registry.memory.limit)
        return MemoryUsage(ram_total=total, ram_available=Memory(in_bytes=self.available))

    def _runner(self, instance: Instance) -> Exo:
        match instance.state:
            case "downloading":
                return RunnerIdle()
            case "loading" if instance.outline is None:  # its files are still looked for
                return RunnerIdle()
            case "loading":
                done, total = instance.progress
                layers = self._outline(instance).layers
                loaded = layers * done // total if total else 0
                return RunnerLoading(layers_loaded=loaded, total_layers=layers)
            case "ready":
                return RunnerReady()
            case "unloading":
                return RunnerShuttingDown()
            case "unloaded":
                return RunnerShutdown()
            case "failed":
                return RunnerFailed(error_message=str(instance.error))

    def _downloads(self) -> list[Tagged]:
        """The files of each instance's model: exo knows one download of a model, the last."""
        instances = {each.card.id: each for each in self.registry.instances()}
        return [tagged(self._download(each)) for each in instances.values()]

    def _download(self, instance: Instance) -> Download:
        shard = tagged(self.shard(instance.card, self._outline(instance)))
        if instance.outline is not None:
            total = Memory(in_bytes=instance.outline.stored)
            return DownloadCompleted(node_id=self.id, shard_metadata=shard, total=total)
        if instance.over:
            error = str(instance.error)
            return DownloadFailed(node_id=self.id, shard_metadata=shard, error_message=error)
        done, total = (Memory(in_bytes=size) for size in instance.progress)
        data = DownloadProgressData(total=total, downloaded=done, downloaded_this_session=done)
        return DownloadOngoing(node_id=self.id, shard_metadata=shard, download_progress=data)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _event(kind: str, about: dict[str, Any]) -> dict[str, Any]:
    lasting = {name: value for name, value in about.items() if name != "when"}
    identity = uuid5(NAMESPACE_OID, kind + msgspec.json.encode(lasting).decode())
    return {kind: {"event_id": str(identity), **about}}
