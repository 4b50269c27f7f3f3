"""`embedsvc report`: what a machine is and how fast it embeds, to be shown to others.

What is in a report is said here. Nothing in it tells who made it: no names of people, machines,
folders or private models.
"""

from typing import Literal

import msgspec

FORMAT: Literal[1] = 1
"""The version of the JSON. It counts up when a field changes its meaning or goes."""


class Machine(msgspec.Struct):
    """The hardware and the system."""

    system: str
    """macOS, Linux or another, with its version."""
    processor: str
    architecture: str
    model: str | None
    """What Apple calls this kind of Mac."""
    cores: int
    usable_cores: int
    fast_cores: int | None
    slow_cores: int | None
    memory_bytes: int
    usable_memory_bytes: int
    translated: bool
    """Whether Rosetta translates this Python."""


class Backend(msgspec.Struct):
    """What computes."""

    name: str
    dtype: str
    """The type of numbers where a card does not say."""
    device: str
    memory_bytes: int
    """What the device has: of a GPU's, what the system recommends to use."""
    models_bytes: int
    """What models may take of it."""
    unused_gpu: str | None = None
    """Why a GPU is not used, on a machine that is known to have one."""


class Memory(msgspec.Struct):
    """Bytes in use at one moment."""

    process: int | None
    """Memory of the service's process: what is resident, or what macOS counts as its own."""
    device: int | None
    """What MLX has in use; None where a processor computes."""


class Pause(msgspec.Struct):
    """One text that came after a pause: the median of a few, where the pause is short."""

    after_seconds: float
    milliseconds: float
    """Until its vector was there, over HTTP."""
    computing_milliseconds: float
    """Of these, what the forward pass took."""


class Load(msgspec.Struct):
    """What came of one shape of load; see `embedsvc bench`."""

    shape: str
    texts_per_second: float
    tokens_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float
    errors: int
    """Answers that were errors or wrong."""


class Longest(msgspec.Struct):
    """The longest text that was tried."""

    tokens: int
    of_tokens: int
    """The longest that the model takes."""
    seconds: float


class Parity(msgspec.Struct):
    """A check of `embedsvc verify`."""

    check: str
    passed: bool | None
    """None: it could not be checked."""
    found: str


class Model(msgspec.Struct):
    """What was found out about one model. What was not measured is None, or not in the list."""

    name: str
    error: str | None = None
    """Why it was not measured, or not to the end."""
    architecture: str | None = None
    dimensions: int | None = None
    max_tokens: int | None = None
    weights_bytes: int | None = None
    load_seconds: float | None = None
    first_vector_milliseconds: float | None = None
    pauses: list[Pause] = []
    loads: list[Load] = []
    longest: Longest | None = None
    memory: dict[str, Memory] = {}
    """By when: "before" the model was loaded, "loaded", "used" and "unloaded"."""
    parity: list[Parity] = []

    @property
    def wrong(self) -> bool:
        """Whether something is not as it should be."""
        failed = any(parity.passed is False for parity in self.parity)
        return failed or self.error is not None or any(load.errors for load in self.loads)


class Report(msgspec.Struct):
    """All of it."""

    versions: dict[str, str]
    machine: Machine
    backend: Backend
    quick: bool
    """Whether long pauses were left out."""
    models: list[Model] = []
    interrupted: bool = False
    """Whether it was ended before its end."""
    format: int = FORMAT
