"""Rows of a cache file: keys and the bytes that belong to them."""

from collections.abc import Iterable
from hashlib import blake2b

D = 8


def key(i: int) -> bytes:
    return blake2b(str(i).encode(), digest_size=16).digest()


def vector(i: int, dimensions: int = D) -> bytes:
    """Any bytes that depend on i; the file does not care that they are floats."""
    return (blake2b(b"v%d" % i).digest() * (dimensions // 16 + 1))[: 4 * dimensions]


def rows(ids: Iterable[int], dimensions: int = D) -> dict[bytes, bytes]:
    return {key(i): vector(i, dimensions) for i in ids}
