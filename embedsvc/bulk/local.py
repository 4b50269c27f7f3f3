"""A model in this process. It embeds as the server would: the same engine, the same vectors."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import msgspec
import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.manifest import EmbedOptions
from embedsvc.catalog.cards import Card, Cards
from embedsvc.catalog.cards_file import find_cards_file
from embedsvc.errors import BulkError, Unavailable
from embedsvc.serving.embed_request import embed_request
from embedsvc.serving.embedded import Embedded
from embedsvc.serving.registry import Registry, open_registry
from embedsvc.serving.score_request import check_one_score, score_request
from embedsvc.settings import Settings
from embedsvc.texts.requests import ScoringRequest

UNLIMITED = 1 << 60
"""Tokens. The callers bound how much waits, so the engine refuses nothing."""


class Local:
    """A loaded model; see `Embedder` and `Ranker`."""

    fingerprint: str | None = None  # not needed: the model stays the same for the whole run
    calls = 4  # enough for a pass on each core and a next one that waits

    def __init__(self, registry: Registry, model: str) -> None:
        self.model = model
        self._registry = registry

    async def embed(self, texts: Sequence[str], options: EmbedOptions) -> Embedded:
        request = options.request(self.model, list(texts))
        try:
            card, prompt = self._registry.card(request.model)
            async with self._registry.use(request.model) as engine:
                return await embed_request(engine, card, prompt, request)
        except Unavailable as error:
            raise BulkError(str(error)) from None

    async def score(self, query: str, documents: Sequence[str]) -> NDArray[np.float64]:
        request = ScoringRequest(model=self.model, query=query, documents=documents)
        try:
            card, _ = self._registry.card(request.model)
            async with self._registry.use(request.model) as engine:
                if engine.checkpoint.scoring is not None:
                    check_one_score(card.id, engine.checkpoint.scoring)
                return (await score_request(engine, card, request)).probabilities()[:, 0]
        except Unavailable as error:
            raise BulkError(str(error)) from None


@asynccontextmanager
async def open_local(card: Card, settings: Settings) -> AsyncGenerator[Local, None]:
    """Load the card's model. Raises `SetupError`."""
    card = msgspec.structs.replace(card, preload=True, pin=True)
    settings = msgspec.structs.replace(
        settings,
        cache_bytes=0,  # equal texts that are in flight are still embedded only once
        cache_folder=None,
        max_request_tokens=UNLIMITED,
        max_pair_tokens=UNLIMITED,
        max_waiting_tokens=UNLIMITED,
    )
    cards = Cards(find_cards_file(settings.models), {card.id: card}, {card.id: card})
    async with open_registry(cards, settings) as registry:
        yield Local(registry, card.id)
