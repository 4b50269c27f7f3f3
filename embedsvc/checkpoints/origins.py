"""The model that a checkpoint was converted from, by its name.

Converters write it into README.md. There is `base_model` too, but what a model was trained from
says nothing of how it is to be used: so that counts only where it is the same model.
"""

import re

from embedsvc.bounds import MODEL_NAME, README
from embedsvc.checkpoints.files import Files

PRECISION = re.compile(
    r"(?:-(?:mlx|b?f(?:p|loat)?(?:16|32)|[2-8]-?bit|q[2-8]|mxfp[48]|nvfp4|dwq|mixed_\d_\d|gs\d{2,3}))+$"
)
"""What converters add to a model's name, in lower case: the format and the precision."""
CONVERTED = re.compile(r"converted to MLX format from\s+\[([^\]\s]{1,200})\]")
"""What converters write into README.md. They keep the original's `base_model`, which is what the
original was trained from."""
KEY = re.compile(r"(\w+):[ \t]*(.*)")


def converted_from(root: Files, own: str) -> str | None:
    """The model that README.md says this one was converted from.

    What a model was trained from says nothing of how it pools. So `base_model` counts where it is
    said to be the same model in another precision, or bears the same name.
    """
    text = _beginning(root).decode("utf-8", "replace")
    converted = CONVERTED.search(text)
    if converted:
        return converted[1]
    about = _front_matter(text)
    base = about.get("base_model", [])
    relation = about.get("base_model_relation")
    if len(base) != 1 or relation not in (None, ["quantized"]):
        return None
    same = relation or about.get("library_name") == ["mlx"] or alike(own, base[0])
    return base[0] if same else None


def _beginning(root: Files) -> bytes:
    """Of README.md, what is looked at. It may be of any length, and its end tells nothing."""
    if not root.has("README.md"):
        return b""
    with root.open("README.md") as stream:
        return stream.read(README)


def _front_matter(text: str) -> dict[str, list[str]]:
    """The keys of the YAML that README.md begins with, and their values: one, or a list.

    Only what those keys need is read of YAML; deeper values are passed over.

    >>> _front_matter("---\\nlicense: mit\\nbase_model:\\n- BAAI/bge-m3\\n---\\n# A model")
    {'license': ['mit'], 'base_model': ['BAAI/bge-m3']}
    """
    first, *lines = text.lstrip("\ufeff").splitlines() or [""]
    found: dict[str, list[str]] = {}
    if first.strip() != "---":
        return found
    key = ""
    for line in lines:
        if line.strip() == "---":
            return found
        if match := KEY.fullmatch(line):
            key, value = match.groups()
            values = value.strip("[] \t").split(",") if value.startswith("[") else [value]
            found[key] = [each for each in map(_unquoted, values) if each]
        elif key and line.lstrip().startswith("- "):
            found[key].append(_unquoted(line.lstrip()[2:]))
    return {}


def _unquoted(value: str) -> str:
    return value.strip().strip("\"'")


def alike(own: str, other: str) -> bool:
    """Whether two repositories or folders have one name, but for the organisation and precision.

    >>> alike("somebody/bge-m3-mlx-8bit", "BAAI/bge-m3"), alike("my-bge-m3", "BAAI/bge-m3")
    (True, False)
    """
    one, two = (plain(name.lower().rpartition("/")[2]) for name in (own, other))
    return one == two


def plain(model: str) -> str:
    """A model's name, in lower case, without the format and precision.

    A name that is longer than any is left as it is, for a file may have one of megabytes.
    """
    return PRECISION.sub("", model) if len(model) <= MODEL_NAME else model
