"""Reloading: the cards file is read again while the server runs."""

import msgspec

from embedsvc.catalog.cards_file import read_cards
from embedsvc.serving.registry import Registry


class Changes(msgspec.Struct):
    """The ids of the cards that differ from the last time the file was read."""

    added: list[str]
    changed: list[str]
    removed: list[str]


def reload(registry: Registry) -> Changes:
    """Follow what the cards file says now, without dropping a request.

    Raises `CardsError` if the file is wrong, and changes nothing then.
    """
    before, now = registry.cards, read_cards(registry.cards.file)
    for card in before.ad_hoc.values():
        if card.id not in now.by_name:
            now = now.with_ad_hoc(card)
    registry.cards = now
    old, new = before.by_id, now.by_id
    changes = Changes(
        added=[name for name in new if name not in old],
        changed=[name for name, card in new.items() if old.get(name, card) != card],
        removed=[name for name in old if name not in new],
    )
    for name in (*changes.changed, *changes.removed):
        registry.replace(old[name], new.get(name))
    registry.retry_failed()
    registry.start_preloaded()
    return changes
