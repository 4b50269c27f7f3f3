"""Choices that make passes faster on some hardware only, made by trying them while a model loads.

Of each choice both ways run in turns, so that a GPU that is still raising its clock favours neither
of them. There is little time for it: 2 seconds, and less than a tenth of what the load has taken.
A choice that is not made by then stays as it was. What is found out is kept for the next load.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from embedsvc.inference.pass_cost import PassTimer

MOST_SECONDS = 2.0
"""How long all choices for one model may take."""
LOAD_SHARE = 0.1
"""The share of the load so far that they may take."""
ROUNDS = 6
"""How often each way is measured at most, after it ran once to prepare its kernels."""
GAIN = 0.97
"""What share of the other's time a way must take to be chosen, so that noise chooses nothing."""
Choices = Mapping[str, bool]
"""The value of each switch of a set of operations, by its name."""


class Shape(NamedTuple):
    """The shape of a batch."""

    texts: int
    length: int


class Kept(Protocol):
    """Keeps choices for the next time, by what they were found for."""

    def get(self, key: str, /) -> Choices | None: ...

    def put(self, key: str, choices: Choices, /) -> None: ...


class Tuning:
    """What `Ops.tune` tries its choices with, for one model."""

    def __init__(
        self,
        seconds: PassTimer,
        model: str,
        kept: Kept | None,
        *,
        loading: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`seconds` runs a pass on the device, in its turn. `model` says what the model's passes
        look like, and `loading` how many seconds the load has taken so far."""
        self._seconds = seconds
        self._model = model
        self._kept = kept
        self._clock = clock
        self._until = clock() + min(MOST_SECONDS, LOAD_SHARE * loading)
        self._longest: dict[Shape, float] = {}
        """What a pass of each shape took at most."""

    def choose(self, ops: object, hardware: str, switches: Mapping[str, Shape]) -> None:
        """Set each of these attributes of the operations to what is faster: True or False.

        Each is tried with batches of the shape at which it matters. `hardware` names it and the
        library that computes.
        """
        key = f"{hardware}, {self._model}"
        known = self._kept.get(key) if self._kept else None
        if known is None or known.keys() != switches.keys():
            known = {name: self._faster(ops, name, shape) for name, shape in switches.items()}
            known = {name: value for name, value in known.items() if value is not None}
            if self._kept and known.keys() == switches.keys():
                self._kept.put(key, known)
        for name, value in known.items():
            setattr(ops, name, value)

    def _faster(self, ops: object, name: str, shape: Shape) -> bool | None:
        """Which value of a switch is faster; None if there is no time to find out."""
        usual: bool = getattr(ops, name)
        ratios: list[float] = []
        """The time of the other value by that of the usual one, in each round."""
        try:
            for round_ in range(1 + ROUNDS):
                took: dict[bool, float] = {}
                # What ran last runs first: that a GPU raises its clock favours each in turn.
                for value in (usual, not usual) if round_ % 2 else (not usual, usual):
                    if not self._has_time(shape):
                        return _choice(usual, ratios)
                    setattr(ops, name, value)
                    took[value] = self._seconds([shape.length] * shape.texts)
                    self._longest[shape] = max(took[value], self._longest.get(shape, 0.0))
                if round_:  # the first prepares kernels
                    ratios.append(took[not usual] / took[usual])
        finally:
            setattr(ops, name, usual)
        return _choice(usual, ratios)

    def _has_time(self, shape: Shape) -> bool:
        """Whether a pass of that shape would end in time, as far as it is known."""
        tokens = shape.texts * shape.length
        known = [
            took * max(1.0, tokens / (texts * length))
            for (texts, length), took in self._longest.items()
        ]
        expected = self._longest.get(shape, min(known, default=0.0))
        return self._clock() + expected < self._until


def _choice(usual: bool, ratios: Sequence[float]) -> bool | None:
    """The usual value, unless the other took clearly less time in the rounds that there were.

    It takes two rounds, one in each order.
    """
    pairs = ratios[: len(ratios) // 2 * 2]
    if not pairs:
        return None
    ratio = math.exp(statistics.median(map(math.log, pairs)))
    return not usual if ratio < GAIN else usual
