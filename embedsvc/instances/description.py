"""What is known of a model once it has been loaded."""

import msgspec

from embedsvc.cards import Prompts
from embedsvc.engine import Engine


class Description(msgspec.Struct, frozen=True):
    """It stays true while the model's card and files do."""

    dimensions: int
    max_tokens: int
    architecture: str
    pooling: str
    prompts: Prompts
    fingerprint: str


def describe(engine: Engine) -> Description:
    """The description of a loaded model."""
    checkpoint = engine.checkpoint
    return Description(
        dimensions=engine.dimensions,
        max_tokens=checkpoint.max_tokens,
        architecture=checkpoint.model_type,
        pooling="+".join(checkpoint.pooling),
        prompts=checkpoint.prompts,
        fingerprint=engine.fingerprint,
    )
