"""Several heads of one pass: what is wanted of each text is computed together."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from embedsvc.inference.heads import HEADS, joined, parts_of, sections
from embedsvc.texts.item import Item

Want = tuple[Item, str]
"""An item, and the head whose result is wanted."""


class Compute(Protocol):
    """Computes the result of each item by a head, or by several joined, in their order.
    `Batcher.submit` is one."""

    def __call__(self, items: list[Item], head: str, /) -> Awaitable[list[bytes]]: ...


def compute_wants(compute: Compute, wants: Sequence[Want]) -> Awaitable[list[bytes]]:
    """The results of wants, one or more, in their order. Texts of which the same heads are wanted
    share passes, and each goes through one."""
    head = wants[0][1]
    if all(other == head for _, other in wants):
        return compute([item for item, _ in wants], head)
    return _compute_joined(compute, wants)


def unpacked(
    heads: Sequence[str], results: Sequence[Sequence[bytes]], items: Sequence[Item]
) -> list[Any]:
    """The results of each head, as its callers use them."""
    return [HEADS[head].unpack(each, items) for head, each in zip(heads, results, strict=True)]


async def _compute_joined(compute: Compute, wants: Sequence[Want]) -> list[bytes]:
    heads: dict[Item, list[str]] = {}
    for item, head in wants:
        heads.setdefault(item, []).append(head)
    groups: dict[str, list[Item]] = {}
    for item, names in heads.items():
        groups.setdefault(joined(names), []).append(item)
    found: dict[Want, bytes] = {}

    async def fill(head: str, items: list[Item]) -> None:
        names = parts_of(head)
        for item, result in zip(items, await compute(items, head), strict=True):
            parts = [result] if len(names) == 1 else sections.split(result, len(names))
            found.update(((item, name), part) for name, part in zip(names, parts, strict=True))

    tasks = [asyncio.ensure_future(fill(head, items)) for head, items in groups.items()]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return [found[want] for want in wants]
