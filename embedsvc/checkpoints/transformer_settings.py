"""sentence_bert_config.json and its namesakes: settings that sentence-transformers has for its
first module, of which vectors depend on the limit of tokens and on lower-casing."""

from typing import Any

import msgspec

from embedsvc.checkpoints.files import Files, as_object

FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""Names that the file may have; the first that is there and not empty counts."""
WITHOUT_EFFECT = {
    "model_kwargs": ("attn_implementation", "dtype", "torch_dtype", "low_cpu_mem_usage",
                     "use_safetensors", "device_map", "add_pooling_layer", "trust_remote_code"),
    "processor_kwargs": ("model_max_length", "padding_side", "padding", "use_fast",
                         "trust_remote_code"),
    "config_kwargs": ("use_memory_efficient_attention", "unpad_inputs", "use_cache",
                      "trust_remote_code"),
}  # fmt: skip
"""Keys that change no vector, or that are obeyed here, by the object they are in."""
WITHOUT_EFFECT_ON_TEXTS = ("padding", "truncation", "return_tensors", "pad_to_multiple_of")
"""The same, in `processing_kwargs`."""
TASKS = ("feature-extraction", "sequence-classification", "text-generation", "fill-mask")
"""What the first module may be: a backbone, a classifier, a decoder whose logits give scores,
or a masked LM whose logits give sparse vectors. Which of them it is, config.json says, and
modules.json."""
BY_ROLE = ("query_length", "document_length", "query_expansion")
"""Keys that late-interaction models have, and no others may."""
OLD_NAMES = {
    "model_args": "model_kwargs",
    "tokenizer_args": "processor_kwargs",
    "config_args": "config_kwargs",
}


class TransformerSettings(msgspec.Struct, frozen=True):
    """The settings that a vector depends on."""

    max_seq_length: int | None = None
    """The most tokens of a text, special tokens included."""
    do_lower_case: bool = False
    """Whether a text is lower-cased before all else."""
    by_role: dict[str, Any] = {}
    """What is said of queries and documents of late-interaction models, by `BY_ROLE`."""


def read_settings(files: Files) -> tuple[str, TransformerSettings]:
    """The name of the file, and its settings; if there is none, the usual name and the defaults.

    Raises `CheckpointError` that names the file and what in it is not supported.
    """
    for name in FILES:
        stated = files.read(name)
        if not stated:
            continue
        for old, new in OLD_NAMES.items():
            if old in stated:
                stated[new] = stated.pop(old)
        _check(files, name, stated)
        limit = stated.get("max_seq_length")
        tokenizer: dict[str, Any] = stated.get("processor_kwargs") or {}
        if "model_max_length" in tokenizer:  # goes before `max_seq_length`
            limit = tokenizer["model_max_length"]
        if limit is not None and (type(limit) is not int or limit < 1):
            raise files.error(name, f"`max_seq_length` must be a number of tokens, not {limit!r}")
        lower = stated.get("do_lower_case", False)
        if not isinstance(lower, bool):
            raise files.error(name, f"`do_lower_case` must be true or false, not {lower!r}")
        by_role = {key: stated[key] for key in BY_ROLE if stated.get(key) is not None}
        return name, TransformerSettings(limit, lower, by_role)
    return FILES[0], TransformerSettings()


def refuse_roles(files: Files) -> None:
    """Raise `CheckpointError` if the settings are of a late-interaction model."""
    name, settings = read_settings(files)
    for key in settings.by_role:
        raise files.error(name, f"`{key}` is not supported but in late-interaction models")


def _check(files: Files, name: str, stated: dict[str, Any]) -> None:
    """Raise `CheckpointError` if the file asks for what is not supported here."""
    task = stated.get("transformer_task", "feature-extraction")
    if task not in TASKS:
        raise files.error(name, f"`transformer_task` of `{task}` is not supported")
    if stated.get("tokenizer_name_or_path") is not None:
        raise files.error(name, "`tokenizer_name_or_path` is not supported")
    for key, known in WITHOUT_EFFECT.items():
        settings = as_object(stated.get(key) or {})
        if settings is None:
            raise files.error(name, f"`{key}` must be an object")
        for inner in settings:
            if inner not in known:
                raise files.error(name, f"`{inner}` in `{key}` is not supported")
    processing = as_object(stated.get("processing_kwargs") or {})
    for key in ("common", "text"):
        settings = as_object((processing or {}).get(key) or {})
        if processing is None or settings is None:
            raise files.error(name, "`processing_kwargs` must be an object of objects")
        for inner in settings:
            if inner not in WITHOUT_EFFECT_ON_TEXTS:
                raise files.error(name, f"`{inner}` in `processing_kwargs` is not supported")
    if "text" not in (as_object(stated.get("modality_config", {"text": {}})) or {}):
        raise files.error(name, "`modality_config` has no text: not a model of text")
