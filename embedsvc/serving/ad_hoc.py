"""Models without a card, which clients may name where the server allows it.

They are repositories, or folders below the cards file's own. The registry keeps a card for each as
if the file had one, up to a number.
"""

from embedsvc.bounds import AD_HOC_MODELS
from embedsvc.catalog.ad_hoc import ad_hoc_card
from embedsvc.catalog.cards import Card
from embedsvc.catalog.names import check_name
from embedsvc.errors import ModelNotFound, Unavailable
from embedsvc.serving.registry import Registry

UNUSED = ("unloaded", "failed")
"""The states in which a model without a card may be forgotten."""


async def find_or_make_card(registry: Registry, name: str, *, field: str = "model") -> Card:
    """The card that a name means, or where the server allows it a new one.

    The new one is of a repository, or of a folder where the name begins with "./" or "/".
    Raises what `Registry.card` raises, and `Unavailable` if too many such models are in use.
    """
    card = await look_for_card(registry, name, field=field)
    if registry.cards.by_id.get(card.id) is card:
        return card
    return _remember(registry, card, check_name(name, field))


async def look_for_card(registry: Registry, name: str, *, field: str = "model") -> Card:
    """The same card; a new one is not remembered. Raises what `Registry.card` does."""
    try:
        return registry.card(name, field=field)[0]
    except ModelNotFound as error:
        if not registry.settings.allow_ad_hoc:
            raise
        not_found = error
    name = check_name(name, field)
    root = registry.cards.file.parent
    card = await registry.look_up(lambda: ad_hoc_card(name, root))
    if card is None:
        raise not_found
    return card


def _remember(registry: Registry, card: Card, name: str) -> Card:
    """Keep a card that clients asked for by that name, and forget another if there are too many."""
    known = registry.cards.ad_hoc
    if card.id not in known and len(known) >= AD_HOC_MODELS:
        unused = [each for each in known.values() if registry.state(each) in UNUSED]
        if not unused:
            raise Unavailable(
                f"{AD_HOC_MODELS} models without a card are loaded, and no more may be: unload "
                "one, or give this one a card."
            )
        registry.forget(min(unused, key=lambda each: registry.state(each) != "failed"))
    registry.cards = registry.cards.with_ad_hoc(card, name)
    return registry.cards.ad_hoc[card.id]
