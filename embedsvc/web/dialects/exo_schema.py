"""What exo's clients read: the fields of exo's own classes, which refuse all others.

The structs have the names of those classes. Fields are in camelCase, but not in answers for which
exo uses its fields' own names: see `by_name`. Of two classes that may stand in one place, the name
says which one it is: see `tagged`. Read from exo's commit b5375f8, of June 2026.
"""

import re
from http.client import responses
from typing import Any, Literal, cast

import msgspec
from msgspec import field

from embedsvc.errors import InstanceNotFound, RequestError
from embedsvc.web.dialects.dialect import Dialect

CAPITAL = re.compile("[A-Z]")
Tagged = dict[str, Any]
"""An object by the name of its class: {"RunnerReady": {...}}."""
Backend = Literal["MlxMetal", "MlxCpu", "MlxCuda"]
BACKENDS: tuple[Backend, ...] = ("MlxMetal", "MlxCpu", "MlxCuda")


class Exo(msgspec.Struct, rename="camel"):
    """The base of what exo writes in camelCase."""


class Memory(Exo):
    in_bytes: int


class SamplingDefaults(Exo):
    """How to choose the next token, which a model for embeddings does not do."""

    temperature: None = None
    top_p: None = None
    top_k: None = None
    min_p: None = None
    repetition_penalty: None = None
    presence_penalty: None = None
    frequency_penalty: None = None
    thinking: None = None
    non_thinking: None = None


class ModelCard(Exo):
    """`tasks` are those that exo knows, and embeddings are none of them."""

    model_id: str
    storage_size: Memory
    n_layers: int
    hidden_size: int
    supports_tensor: bool = False
    num_key_value_heads: int | None = None
    tasks: list[str] = field(default_factory=list[str])
    components: None = None
    family: str = ""
    quantization: str = ""
    base_model: str = ""
    capabilities: list[str] = field(default_factory=list[str])
    backends: tuple[Backend, ...] = BACKENDS
    reasoning_dialect: Literal["none"] = "none"
    context_length: int = 0
    uses_cfg: bool = False
    remote_code: Literal[False] = field(default=False, name="trustRemoteCode")
    """Nothing of a model's own code is run here; what leaves this out, exo takes for yes."""
    is_custom: bool = False
    vision: None = None
    sampling_defaults: SamplingDefaults = field(default_factory=SamplingDefaults)


class PipelineShardMetadata(Exo):
    """A model, or the layers of it that one machine has: here, all."""

    model_card: ModelCard
    end_layer: int
    n_layers: int
    device_rank: int = 0
    world_size: int = 1
    immediate_exception: bool = False
    should_timeout: None = None
    start_layer: int = 0


class ShardAssignments(Exo):
    model_id: str
    runner_to_shard: dict[str, Tagged]
    node_to_runner: dict[str, str]


class Host(Exo):
    ip: str
    port: int


class MlxRingInstance(Exo):
    instance_id: str
    shard_assignments: ShardAssignments
    hosts_by_node: dict[str, list[Host]]
    ephemeral_port: int


class RunnerIdle(Exo):
    """It waits for its model's files."""


class RunnerLoading(Exo):
    layers_loaded: int
    total_layers: int


class RunnerReady(Exo):
    prefill_server_port: None = None


class RunnerShuttingDown(Exo):
    pass


class RunnerShutdown(Exo):
    pass


class RunnerFailed(Exo):
    """`diagnostics` are of failures between machines, and of exo's own on a GPU."""

    error_message: str
    diagnostics: list[Tagged] = field(default_factory=list[Tagged])


class DownloadProgressData(Exo):
    """What is not known of a download is 0: its files, its speed, and when it ends."""

    total: Memory
    downloaded: Memory
    downloaded_this_session: Memory
    completed_files: int = 0
    total_files: int = 0
    speed: float = 0.0
    eta_ms: int = 0
    files: dict[str, Any] = field(default_factory=dict[str, Any])


class Download(Exo, kw_only=True):
    node_id: str
    shard_metadata: Tagged
    model_directory: str = ""


class DownloadOngoing(Download, kw_only=True):
    download_progress: DownloadProgressData


class DownloadCompleted(Download, kw_only=True):
    total: Memory
    read_only: bool = False


class DownloadFailed(Download, kw_only=True):
    error_message: str


class MemoryUsage(Exo):
    """What models may have, and what is not taken for good: others make room."""

    ram_total: Memory
    ram_available: Memory
    swap_total: Memory = field(default_factory=lambda: Memory(0))
    swap_available: Memory = field(default_factory=lambda: Memory(0))


class NodeIdentity(Exo):
    chip_id: str
    os_version: str
    friendly_name: str = "embedsvc"
    model_id: str = "Unknown"
    os_build_version: str = "Unknown"


class TopologySnapshot(Exo):
    nodes: list[str]
    connections: dict[str, Any] = field(default_factory=dict[str, Any])


class State(Exo, kw_only=True):
    """All that a cluster of exo's knows, of a cluster of one."""

    instances: dict[str, Tagged]
    runners: dict[str, Tagged]
    downloads: dict[str, list[Tagged]]
    tasks: dict[str, Any] = field(default_factory=dict[str, Any])
    last_seen: dict[str, str]
    topology: TopologySnapshot
    last_event_applied_idx: int
    node_identities: dict[str, NodeIdentity]
    node_memory: dict[str, MemoryUsage]
    node_disk: dict[str, Any] = field(default_factory=dict[str, Any])
    node_system: dict[str, Any] = field(default_factory=dict[str, Any])
    node_network: dict[str, Any] = field(default_factory=dict[str, Any])
    node_thunderbolt: dict[str, Any] = field(default_factory=dict[str, Any])
    node_thunderbolt_bridge: dict[str, Any] = field(default_factory=dict[str, Any])
    node_rdma_ctl: dict[str, Any] = field(default_factory=dict[str, Any])
    node_backends: dict[str, list[Backend]]
    thunderbolt_bridge_cycles: list[Any] = field(default_factory=list[Any])
    instance_links: dict[str, Any] = field(default_factory=dict[str, Any])
    prefill_server_ports: dict[str, int] = field(default_factory=dict[str, int])
    custom_model_cards: dict[str, ModelCard]


class PlacementPreview(msgspec.Struct):
    """A way to place a model, or in `error` why it is none."""

    model_id: str
    sharding: str
    instance_meta: str
    instance: Tagged | None = None
    memory_delta_by_node: dict[str, int] | None = None
    error: str | None = None


class PlacementPreviews(msgspec.Struct):
    previews: list[PlacementPreview]


class Command(msgspec.Struct):
    """A command that was taken, and is being carried out.

    exo tells `instance_id` of one that deletes alone, and `model_card` of the others.
    """

    message: str
    command_id: str
    instance_id: str
    model_card: ModelCard | msgspec.UnsetType = msgspec.UNSET


class ErrorInfo(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: int


class ExoError(msgspec.Struct):
    """exo's errors: `type` is what HTTP calls the status, and `code` is the status."""

    error: ErrorInfo


def write_error(error: RequestError) -> ExoError:
    """An error as exo's clients read it."""
    words = "Instance not found" if isinstance(error, InstanceNotFound) else error.message
    phrase = responses.get(error.status, "Client Closed Request")  # 499 is nobody's but nginx's
    return ExoError(ErrorInfo(words, phrase, error.field, error.status))


EXO = Dialect(
    "exo",
    (
        *("/instance", "/place_instance", "/node_id", "/state", "/events", "/onboarding"),
        *("/models/add", "/models/custom", "/v1/feature-flags", "/v1/instance-links"),
    ),
    ExoError,
    write_error,
)


def tagged(value: Exo) -> Tagged:
    """An object with the name of its class.

    >>> tagged(RunnerReady())
    {'RunnerReady': RunnerReady(prefill_server_port=None)}
    """
    return {type(value).__name__: value}


def by_name(value: Any) -> Any:
    """The same with the fields' own names, as exo writes what it streams.

    >>> by_name(tagged(RunnerLoading(layers_loaded=1, total_layers=6)))
    {'RunnerLoading': {'layers_loaded': 1, 'total_layers': 6}}
    """
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        return {
            CAPITAL.sub(lambda found: f"_{found[0].lower()}", written): by_name(getattr(value, own))
            for written, own in names
        }
    if isinstance(value, dict):
        return {key: by_name(inner) for key, inner in cast(dict[str, Any], value).items()}
    if isinstance(value, list | tuple):
        return [by_name(inner) for inner in cast(list[Any], value)]
    return value
