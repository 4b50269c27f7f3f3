"""Placing: what the buffers of a traced pass have rows for, and which of them may share memory."""

from collections.abc import Collection, Sequence

from embedsvc.inference.ops.native.steps import Rows, Step


def kinds_of(
    steps: Sequence[Step],
    buffers: Sequence[Rows],
    results: Collection[int],
    by_text: frozenset[str],
) -> list[str]:
    """TOKENS, CHUNK or TEXTS for each buffer, `results` being the numbers of those that are.

    Steps between two that need all rows of a batch (`by_text` has their operations) are run on one
    chunk of tokens after the other. A buffer that only such a stretch of steps uses is a CHUNK.
    """
    stretches = _stretches(steps, buffers, by_text)
    kinds: list[str] = []
    for number, (buffer, used_by) in enumerate(zip(buffers, _uses(steps, buffers), strict=True)):
        if buffer.per_text:
            kinds.append("TEXTS")
        elif number not in results and len({stretches[step] for step in used_by}) == 1:
            kinds.append("CHUNK")
        else:
            kinds.append("TOKENS")
    return kinds


def share_memory(
    steps: Sequence[Step],
    buffers: Sequence[Rows],
    kinds: Sequence[str],
    results: Collection[int],
) -> list[int]:
    """For each buffer the one whose memory it takes: its own, or one that no later step needs."""
    uses = _uses(steps, buffers)
    place = list(range(len(buffers)))
    last_use: dict[int, int] = {}  # memory -> the last step that needs it
    for buffer in sorted(place, key=lambda number: uses[number][0]):
        if buffer in results:
            continue
        for other, last in last_use.items():
            alike = kinds[other] == kinds[buffer] and buffers[other].width == buffers[buffer].width
            if alike and last < uses[buffer][0]:
                place[buffer] = other
                break
        last_use[place[buffer]] = uses[buffer][-1]
    return place


def _uses(steps: Sequence[Step], buffers: Sequence[Rows]) -> list[list[int]]:
    """The numbers of the steps that touch each buffer, in order."""
    uses: list[list[int]] = [[] for _ in buffers]
    for number, step in enumerate(steps):
        for value in step.operands().values():
            if value is not None:
                uses[value.buffer].append(number)
    return uses


def _stretches(
    steps: Sequence[Step], buffers: Sequence[Rows], by_text: frozenset[str]
) -> list[int]:
    """The number of each step's stretch; a step on all rows of a batch is one by itself."""
    stretch, stretches = 0, list[int]()
    for step in steps:
        whole = step.operation in by_text or buffers[step.out.buffer].per_text
        stretch += whole
        stretches.append(stretch)
        stretch += whole
    return stretches
