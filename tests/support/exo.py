"""exo's classes as facts, and a reader as strict as its own.

Read from exo's commit b5375f8cee4368d09e1ce96a56b9f81fb0bc81aa, of 22 June 2026: src/exo/api/types,
src/exo/shared/types, src/exo/shared/models/model_cards.py, src/exo/utils/pydantic_ext.py. Only
classes that an answer of this server may have, and those that may stand in their place.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

STRICT = {
    "Memory": "in_bytes: int =",
    "Host": "ip: str, port: Port",
    "SamplingValues": """temperature: float? =, top_p: float? =, top_k: int? =, min_p: float? =,
        repetition_penalty: float? =, presence_penalty: float? =, frequency_penalty: float? =""",
    "SamplingDefaults": """temperature: float? =, top_p: float? =, top_k: int? =, min_p: float? =,
        repetition_penalty: float? =, presence_penalty: float? =, frequency_penalty: float? =,
        thinking: SamplingValues? =, non_thinking: SamplingValues? =""",
    "ComponentInfo": """component_name: str, component_path: str, storage_size: Memory,
        n_layers: Positive? =, can_shard: bool, safetensors_index_filename: str? =""",
    "VisionCardConfig": """image_token_id: int, model_type: str, weights_repo: str =,
        image_token: str? =, processor_repo: str? =""",
    "ModelCard": """model_id: str, storage_size: Memory, n_layers: Positive, hidden_size: Positive,
        supports_tensor: bool, num_key_value_heads: Positive? =, tasks: [ModelTask],
        components: [ComponentInfo]? =, family: str =, quantization: str =, base_model: str =,
        capabilities: [str] =, backends: [Backend], reasoning_dialect: ReasoningDialect =,
        context_length: int =, uses_cfg: bool =, trust_remote_code: bool =, is_custom: bool =,
        vision: VisionCardConfig? =, sampling_defaults: SamplingDefaults =""",
    "ShardAssignments": "model_id: str, runner_to_shard: {ShardMetadata}, node_to_runner: {str}",
    "DownloadProgressData": """total: Memory, downloaded: Memory, downloaded_this_session: Memory,
        completed_files: int, total_files: int, speed: float, eta_ms: int,
        files: {DownloadProgressData}""",
    "MemoryUsage": """ram_total: Memory, ram_available: Memory, swap_total: Memory,
        swap_available: Memory""",
    "DiskUsage": "total: Memory, available: Memory",
    "SystemPerformanceProfile": """gpu_usage: float =, temp: float =, sys_power: float =,
        pcpu_usage: float =, ecpu_usage: float =""",
    "NodeIdentity": """model_id: str =, chip_id: str =, friendly_name: str =, os_version: str =,
        os_build_version: str =""",
    "NodeNetworkInfo": "interfaces: [Nothing] =",
    "NodeThunderboltInfo": "interfaces: [Nothing] =",
    "NodeRdmaCtlStatus": "enabled: bool",
    "ThunderboltBridgeStatus": "enabled: bool, exists: bool, service_name: str? =",
    "InstanceLink": "link_id: str, prefill_instances: [str], decode_instances: [str]",
    "TopologySnapshot": "nodes: [str], connections: {Nothing}",
    "State": """instances: {Instance} =, runners: {RunnerStatus} =,
        downloads: {[DownloadProgress]} =, tasks: {Nothing} =, last_seen: {Time} =,
        topology: TopologySnapshot =, last_event_applied_idx: Index =,
        node_identities: {NodeIdentity} =,
        node_memory: {MemoryUsage} =, node_disk: {DiskUsage} =,
        node_system: {SystemPerformanceProfile} =, node_network: {NodeNetworkInfo} =,
        node_thunderbolt: {NodeThunderboltInfo} =,
        node_thunderbolt_bridge: {ThunderboltBridgeStatus} =, node_rdma_ctl: {NodeRdmaCtlStatus} =,
        node_backends: {[Backend]} =, thunderbolt_bridge_cycles: [[str]] =,
        instance_links: {InstanceLink} =, prefill_server_ports: {int} =,
        custom_model_cards: {ModelCard} =""",
}
"""Classes that refuse unknown fields, and their fields. Those with `=` may be left out. `?` is a
type or null, [] is a list, {} an object from texts."""
_SHARD = """model_card: ModelCard, device_rank: int, world_size: int, immediate_exception: bool =,
    should_timeout: float? =, start_layer: NotNegative, end_layer: NotNegative,
    n_layers: NotNegative"""
_INSTANCE = "instance_id: str, shard_assignments: ShardAssignments"
_DOWNLOAD = "node_id: str, shard_metadata: ShardMetadata, model_directory: str ="
_DIAGNOSTIC = "message: str, evidence: [str] ="
TAGGED = {
    "PipelineShardMetadata": _SHARD,
    "TensorShardMetadata": _SHARD,
    "CfgShardMetadata": _SHARD
    + ", cfg_rank: int, cfg_world_size: int =, pipeline_rank: int, pipeline_world_size: int",
    "MlxRingInstance": f"{_INSTANCE}, hosts_by_node: {{[Host]}}, ephemeral_port: int",
    "MlxJacclInstance": f"{_INSTANCE}, jaccl_devices: [[str?]], jaccl_coordinators: {{str}}",
    "RunnerIdle": "",
    "RunnerConnecting": "",
    "RunnerConnected": "",
    "RunnerLoading": "layers_loaded: int =, total_layers: int =",
    "RunnerLoaded": "",
    "RunnerWarmingUp": "",
    "RunnerReady": "prefill_server_port: int? =",
    "RunnerRunning": "",
    "RunnerShuttingDown": "",
    "RunnerShutdown": "",
    "RunnerFailed": "error_message: str? =, diagnostics: [KnownRunnerDiagnostic]",
    "RunnerMetalGpuTimeout": _DIAGNOSTIC,
    "RunnerRingTransportError": _DIAGNOSTIC,
    "RunnerRingSocketReceivingError": _DIAGNOSTIC
    + ", error_number: int, error_name: str, error_description: str",
    "DownloadPending": f"{_DOWNLOAD}, downloaded: Memory =, total: Memory =",
    "DownloadCompleted": f"{_DOWNLOAD}, total: Memory, read_only: bool =",
    "DownloadFailed": f"{_DOWNLOAD}, error_message: str",
    "DownloadOngoing": f"{_DOWNLOAD}, download_progress: DownloadProgressData",
    "StaticNodeInformation": "model: str, chip: str, os_version: str, os_build_version: str",
    "MiscData": "friendly_name: str",
    "NodeBackends": "backends: [Backend]",
    "NodeDiskUsage": "disk_usage: DiskUsage",
    "InstanceCreated": "event_id: str =, instance: Instance",
    "InstanceDeleted": "event_id: str =, instance_id: str",
    "RunnerStatusUpdated": "event_id: str =, runner_id: str, runner_status: RunnerStatus",
    "NodeGatheredInfo": "event_id: str =, node_id: str, when: str, info: GatheredInfo",
    "NodeDownloadProgress": "event_id: str =, download_progress: DownloadProgress",
    "CustomModelCardAdded": "event_id: str =, model_card: ModelCard",
    "CustomModelCardDeleted": "event_id: str =, model_id: str",
}
"""The same of classes that are written as an object with one key, their name."""
LENIENT = {
    "PlacementPreview": """model_id: str, sharding: Sharding, instance_meta: InstanceMeta,
        instance: Instance? =, memory_delta_by_node: {int}? =, error: str? =""",
    "PlacementPreviewResponse": "previews: [PlacementPreview]",
    "CreateInstanceResponse": "message: str, command_id: str, model_card: ModelCard",
    "DeleteInstanceResponse": "message: str, command_id: str, instance_id: str",
    "AwaitInstanceReadyMessage": "type: Ready =, instance: Instance",
    "AwaitInstanceTimeoutMessage": "type: Timeout =, message: str",
    "ErrorInfo": "message: str, type: str, param: str? =, code: int",
    "ErrorResponse": "error: ErrorInfo",
    "ModelListModel": """id: str, object: str =, created: int =, owned_by: str =,
        hugging_face_id: str =, name: str =, description: str =, context_length: int =,
        tags: [str] =, storage_size_megabytes: int =, supports_tensor: bool =, tasks: [str] =,
        is_custom: bool =, family: str =, quantization: str =, base_model: str =,
        capabilities: [str] =, reasoning_dialect: ReasoningDialect =""",
    "ModelList": "object: List =, data: [ModelListModel]",
}
"""The same of classes that overlook unknown fields. Their own fields are never in camelCase."""
UNIONS = {
    "Instance": "MlxRingInstance MlxJacclInstance",
    "ShardMetadata": "PipelineShardMetadata CfgShardMetadata TensorShardMetadata",
    "RunnerStatus": """RunnerIdle RunnerConnecting RunnerConnected RunnerLoading RunnerLoaded
        RunnerWarmingUp RunnerReady RunnerRunning RunnerShuttingDown RunnerShutdown RunnerFailed""",
    "KnownRunnerDiagnostic": """RunnerMetalGpuTimeout RunnerRingTransportError
        RunnerRingSocketReceivingError""",
    "DownloadProgress": "DownloadPending DownloadCompleted DownloadFailed DownloadOngoing",
    "GatheredInfo": "StaticNodeInformation MiscData NodeBackends NodeDiskUsage MemoryUsage",
    "Event": """InstanceCreated InstanceDeleted RunnerStatusUpdated NodeGatheredInfo
        NodeDownloadProgress CustomModelCardAdded CustomModelCardDeleted""",
}
WORDS = {
    "Sharding": "Tensor Pipeline",
    "InstanceMeta": "MlxRing MlxJaccl",
    "Backend": "MlxMetal MlxCpu MlxCuda Vllm",
    "ModelTask": "TextGeneration TextToImage ImageToImage",
    "ReasoningDialect": "none post_last_user suffix channel tool_conditional",
    "Ready": "ready",
    "Timeout": "timeout",
    "List": "list",
}
SIMPLE: dict[str, Any] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: type(value) is int,
    "float": lambda value: type(value) in (int, float),
    "bool": lambda value: type(value) is bool,
    "Positive": lambda value: type(value) is int and value > 0,
    "NotNegative": lambda value: type(value) is int and value >= 0,
    "Index": lambda value: type(value) is int and value >= -1,
    "Port": lambda value: type(value) is int and 0 <= value <= 65535,
    "Time": lambda value: datetime.fromisoformat(value).tzinfo is not None,
    "Nothing": lambda value: False,
}


def fields_of(name: str) -> dict[str, tuple[str, bool]]:
    """The fields of a class: the type of each, and whether it must be there."""
    text = next(table[name] for table in (STRICT, TAGGED, LENIENT) if name in table)
    parts = [part.strip() for part in text.split(",") if part.strip()]
    pairs = [(part.partition(":")[0], part.partition(":")[2].strip()) for part in parts]
    return {key: (kind.removesuffix("=").strip(), not kind.endswith("=")) for key, kind in pairs}


def refusal(value: Any, kind: str, *, camel: bool = True, at: str = "$") -> str | None:
    """Why exo's own classes would refuse a value; None if they take it.

    `camel` says that it is written in camelCase, rather than with the fields' own names.
    """
    if kind.endswith("?"):
        return None if value is None else refusal(value, kind[:-1], camel=camel, at=at)
    if kind[0] in "[{":
        return _many(value, kind, camel, at)
    if kind in SIMPLE or kind in WORDS:
        right = SIMPLE[kind](value) if kind in SIMPLE else value in WORDS[kind].split()
        return None if right else f"{at}: {value!r} is no {kind}"
    if kind in UNIONS:
        return _one_of(value, UNIONS[kind].split(), camel, at)
    if kind in TAGGED:
        if not isinstance(value, dict) or list(value) != [kind]:
            return f"{at}: is no object with {kind} alone"
        return _object(value[kind], kind, camel, f"{at}.{kind}")
    return _object(value, kind, camel, at)


def _many(value: Any, kind: str, camel: bool, at: str) -> str | None:
    if not isinstance(value, list if kind[0] == "[" else dict):
        return f"{at}: is no {kind}"
    items = enumerate(value) if isinstance(value, list) else value.items()
    each = (refusal(one, kind[1:-1], camel=camel, at=f"{at}.{key}") for key, one in items)
    return next(filter(None, each), None)


def _one_of(value: Any, kinds: list[str], camel: bool, at: str) -> str | None:
    tag = next(iter(value)) if isinstance(value, dict) and len(value) == 1 else None
    kind = tag if tag in kinds else next((name for name in kinds if name not in TAGGED), None)
    return refusal(value, kind, camel=camel, at=at) if kind else f"{at}: is none of {kinds}"


def _object(value: Any, kind: str, camel: bool, at: str) -> str | None:
    if not isinstance(value, Mapping):
        return f"{at}: is no {kind}"
    written = camel and kind not in LENIENT
    fields = {spelled(key, camel=written): about for key, about in fields_of(kind).items()}
    if kind not in LENIENT and (unknown := set(value) - set(fields)):
        return f"{at}: {kind} has no {sorted(unknown)}"
    for key, (inner, required) in fields.items():
        if key not in value:
            if required:
                return f"{at}: {kind} lacks {key}"
        elif wrong := refusal(value[key], inner, camel=camel, at=f"{at}.{key}"):
            return wrong
    return None


def spelled(name: str, *, camel: bool) -> str:
    """A field's name as it is written."""
    return re.sub("_([a-z])", lambda found: found[1].upper(), name) if camel else name
