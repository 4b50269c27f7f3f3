"""ALBERT: BERT whose layers share their weights, with narrow embeddings (Lan et al., 2019,
arXiv:1909.11942)."""

from embedsvc.checkpoints.tensors import Tensors
from embedsvc.inference.models import bert
from embedsvc.inference.models.activations import read_activation
from embedsvc.inference.models.configs import Layers, Size
from embedsvc.inference.models.weight_reader import WeightReader
from embedsvc.inference.ops.base import Inputs, Ops

UNUSED = ("pooler.", "predictions.", "sop_classifier.", "embeddings.position_ids")
"""Beginnings of the names of tensors that checkpoints have and hidden states do not need."""
EXPANDED = bert.EXPANDED


class Config(bert.Config, frozen=True, kw_only=True):
    """The fields of config.json that the pass depends on."""

    embedding_size: Size
    num_hidden_groups: Layers = 1
    inner_group_num: Layers = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_hidden_groups > self.num_hidden_layers:
            raise ValueError(
                f"`num_hidden_groups` of {self.num_hidden_groups} are more than "
                f"`num_hidden_layers`, {self.num_hidden_layers}"
            )


def prepare(ops: Ops, tensors: Tensors, config: Config, inputs: Inputs) -> bert.Weights:
    """Weights on the device, from tensors under transformers' names."""
    read = WeightReader(ops, tensors)
    width, inner = config.hidden_size, config.intermediate_size
    count, groups = config.num_hidden_layers, config.num_hidden_groups

    def layer(name: str) -> bert.Layer:
        block = f"{name}.attention"
        return bert.Layer(
            qkv=read.joined({f"{block}.{x}": width for x in ("query", "key", "value")}, width),
            attention_out=read.linear(f"{block}.dense", width, width),
            attention_norm=read.norm(f"{block}.LayerNorm", width),
            up=read.linear(f"{name}.ffn", width, inner),
            activation=read_activation(tensors, config.hidden_act, f"{name}.activation"),
            down=read.linear(f"{name}.ffn_output", inner, width),
            mlp_norm=read.norm(f"{name}.full_layer_layer_norm", width),
        )

    def group(index: int) -> tuple[bert.Layer, ...]:
        name = f"encoder.albert_layer_groups.{index}.albert_layers"
        return tuple(layer(f"{name}.{i}") for i in range(config.inner_group_num))

    shared = [group(index) for index in range(groups)]
    return bert.prepare(
        ops,
        tensors,
        config,
        inputs,
        embedding_width=config.embedding_size,
        projection="encoder.embedding_hidden_mapping_in",
        layers=tuple(each for i in range(count) for each in shared[int(i / (count / groups))]),
    )


forward = bert.forward
