"""MaxSim on each backend against one that looks at a pair of tokens at a time."""

import numpy as np
import pytest
from numpy.typing import NDArray

from embedsvc.inference.ops.base import Ops
from embedsvc.inference.ops.mlx import maxsim as on_mlx
from embedsvc.inference.ops.native import NativeOps, library
from embedsvc.inference.ops.native.maxsim import score_documents
from embedsvc.inference.ops.numpy import maxsim as on_numpy
from tests.support.tolerance import within


def vectors(random: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    made = random.normal(size=shape).astype(np.float32)
    return made / np.linalg.norm(made, axis=-1, keepdims=True)


def plain(query: NDArray[np.float32], document: NDArray[np.float16]) -> float:
    words = document.astype(np.float64)
    return sum(max(float(q @ word) for word in words) for q in query.astype(np.float64))


@pytest.mark.parametrize("tokens", [1, 5, 32, 50, 130])
@pytest.mark.parametrize("size", [1, 7, 48, 128])
def test_scores_are_sums_of_the_best_products(
    ops: Ops, tokens: int, size: int, random: np.random.Generator
) -> None:
    query = vectors(random, tokens, size)
    documents = [vectors(random, n, size).astype(np.float16) for n in (3, 1, 64, 65, 200, 2)]
    found = ops.maxsim(query, documents)
    expected = [plain(query, document) for document in documents]
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= within(1e-5 * max(1, tokens / 8), ops)


def test_what_is_not_near_anything_scores_below_0(ops: Ops) -> None:
    query, document = np.array([[1, 0]], np.float32), np.array([[-1, 0], [-0.5, 1]], np.float16)
    assert ops.maxsim(query, [document]).tolist() == [-0.5]


def test_every_number_of_float16_is_read_as_it_is(ops: Ops) -> None:
    some = np.concatenate([np.arange(0, 1 << 16, 61), np.arange(2000), np.arange(31000, 31744)])
    every = some.astype(np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    assert ops.maxsim(np.ones((1, 1), np.float32), [finite[None, :1]]).tolist() == [finite[0]]
    found = ops.maxsim(np.ones((1, 1), np.float32), list(finite.reshape(-1, 1, 1)))
    assert np.array_equal(found, finite.astype(np.float32))


def test_documents_are_scored_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, ops: Ops, random: np.random.Generator
) -> None:
    query = vectors(random, 8, 16)
    documents = [vectors(random, n, 16).astype(np.float16) for n in (40, 3, 17, 40, 1)]
    whole = ops.maxsim(query, documents)
    monkeypatch.setattr(on_mlx, "NUMBERS", 700)
    monkeypatch.setattr(on_numpy, "ROWS", 7)
    assert np.abs(ops.maxsim(query, documents) - whole).max() <= within(1e-6, ops)


@pytest.mark.parametrize("kernels", library.load().kernels, ids=lambda kernels: kernels.name)
def test_every_instruction_set_scores_alike(
    kernels: library.Kernels, random: np.random.Generator
) -> None:
    query = vectors(random, 33, 40)
    documents = [vectors(random, n, 40).astype(np.float16) for n in (5, 70)]
    found = NativeOps(1, kernels).maxsim(query, documents)
    assert np.allclose(found, [plain(query, document) for document in documents], atol=1e-4)


def test_sizes_that_cannot_be_are_refused() -> None:
    functions = library.load().functions
    query, document = np.ones((2, 3), np.float32), np.ones((1, 3), np.float16)
    for some, documents in ((query[:0], [document]), (query, []), (query, [document[:0]])):
        with pytest.raises(ValueError, match="a query of"):
            score_documents(functions, 0, some, documents)


@pytest.mark.parametrize("shape", [(4,), (2, 2), (2, 4), (1, 2, 3)])
def test_documents_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    functions = library.load().functions
    query, document = np.ones((2, 3), np.float32), np.ones((1, 3), np.float16)
    with pytest.raises(ValueError, match=r"a query of \(2, 3\) for a document of"):
        score_documents(functions, 0, query, [document, np.ones(shape, np.float16)])
