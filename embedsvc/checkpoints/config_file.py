"""config.json: what kind of model a checkpoint is of, and its sizes."""

from typing import Any

from embedsvc.checkpoints.config_defaults import completed
from embedsvc.checkpoints.file_kinds import found_instead
from embedsvc.checkpoints.files import Files, as_array
from embedsvc.checkpoints.quantization import read_quantization

CLASSES = {
    "BertFor": "bert",
    "BertModel": "bert",
    "RobertaFor": "roberta",
    "RobertaModel": "roberta",
    "XLMRoberta": "xlm-roberta",
    "DistilBert": "distilbert",
    "Camembert": "camembert",
    "MPNet": "mpnet",
    "Albert": "albert",
    "Electra": "electra",
    "DebertaV2": "deberta-v2",
}
"""The `model_type` of config.json files that are older than that key, by the beginning of the class
name that they have in `architectures`."""


def read_config(files: Files, *, static: bool) -> dict[str, Any]:
    """config.json, completed. Raises `CheckpointError` where it asks for what is not supported."""
    config = files.read("config.json")
    try:
        read_quantization(config)
    except ValueError as error:
        raise files.error("config.json", str(error)) from None
    if static:
        return {**config, "model_type": "static"}
    if not config:
        raise files.error("config.json", "is missing" + found_instead(files.folder))
    kind = config.setdefault("model_type", _kind(config))
    if not isinstance(kind, str):
        raise files.error("config.json", "does not say its `model_type`")
    return completed(config)


def _kind(config: dict[str, Any]) -> str | None:
    """The `model_type` of an old config.json, by the class that it names.

    >>> _kind({"architectures": ["XLMRobertaForMaskedLM"]})
    'xlm-roberta'
    """
    for name in as_array(config.get("architectures")) or ():
        for beginning, kind in CLASSES.items():
            if str(name).startswith(beginning):
                return kind
    return None
