"""Where a model's LoRA adapter is, and the base model of one that has no weights beside it."""

from pathlib import Path

from embedsvc.catalog.cards import Card
from embedsvc.checkpoints.adapter import CONFIG, Adapter, has_adapter
from embedsvc.checkpoints.files import Files
from embedsvc.checkpoints.sources import find_checkpoint
from embedsvc.checkpoints.tensor_files import weight_files
from embedsvc.errors import CheckpointError


def find_adapter(card: Card, root: Path) -> tuple[Adapter | None, Files | None]:
    """The adapter that the card names, or that lies in the model's folder `root`; and the files of
    its base model, if those are not the ones in `root`.

    Models with one base share its files. Raises `CheckpointError`.
    """
    if card.adapter is not None:
        return Adapter(card.id, _find(card, card.adapter, None)), None
    if not has_adapter(root):
        return None, None
    adapter = Adapter(card.id, root)
    if _has_weights(card, root):
        return adapter, None
    base = adapter.config.base_model_name_or_path
    if not base:
        raise CheckpointError(
            f"model `{card.id}`: {root / CONFIG}: names no `base_model_name_or_path`; give the "
            "card the base as its `repo` or `path`, and this folder as its `adapter`"
        )
    return adapter, Files(card.id, _find(card, base, adapter.config.revision))


def _find(card: Card, place: str, revision: str | None) -> Path:
    """The folder of an adapter or of a base model: itself, or a repository's."""
    folder = Path(place).expanduser()
    if folder.is_dir() and not card.ad_hoc:  # a stranger's file opens no folder of this machine
        return folder
    if folder.is_absolute() or place.startswith((".", "~")) or place.count("/") != 1:
        raise CheckpointError(f"model `{card.id}`: there is no folder {place}")
    return find_checkpoint(Card(id=card.id, repo=place, revision=revision))


def _has_weights(card: Card, root: Path) -> bool:
    try:
        weight_files(card.id, root)
    except CheckpointError:
        return False
    return True
