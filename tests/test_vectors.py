"""What becomes of a finished vector: fewer components, fewer bits, the same direction."""

import numpy as np
import pytest

from embedsvc.errors import BadRequest, EmbeddingFailed
from embedsvc.serving.averaging import average
from embedsvc.serving.matryoshka import check_dimensions, shorten
from embedsvc.serving.quantize import quantize


@pytest.fixture
def vectors(random: np.random.Generator) -> np.ndarray:
    vectors = random.normal(size=(5, 12)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_shortened_vector_is_the_first_components_at_unit_length(vectors: np.ndarray) -> None:
    found = shorten(vectors, 4, layer_norm=False)
    assert found.shape == (5, 4)
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6
    assert np.abs(found / found[:, :1] - vectors[:, :4] / vectors[:, :1]).max() < 1e-4


def test_a_layer_norm_before_the_cut_is_that_of_the_whole_vector(vectors: np.ndarray) -> None:
    normed = (vectors - vectors.mean(axis=1, keepdims=True)) / vectors.std(axis=1, keepdims=True)
    expected = normed[:, :4] / np.linalg.norm(normed[:, :4], axis=1, keepdims=True)
    assert np.abs(shorten(vectors, 4, layer_norm=True) - expected).max() < 1e-6


def test_all_components_are_the_vector_itself(vectors: np.ndarray) -> None:
    assert shorten(vectors, 12, layer_norm=True) is vectors


def test_a_vector_that_becomes_zero_is_an_error_and_never_nan() -> None:
    nothing = np.array([[0, 0, 1], [1, 0, 0]], np.float32)
    with pytest.raises(EmbeddingFailed, match="no finite, non-zero vector"):
        shorten(nothing, 2, layer_norm=False)
    opposite = np.array([[1, 0], [-1, 0]], np.float32)
    for normalize in (True, False):
        with pytest.raises(EmbeddingFailed, match="no finite, non-zero vector"):
            average(opposite, [2, 2], [2], normalize=normalize)


@pytest.mark.parametrize("dimensions", [12, 4, 8])
def test_sizes_that_the_model_was_trained_for_are_taken(dimensions: int) -> None:
    check_dimensions(dimensions, 12, [4, 8])


@pytest.mark.parametrize(
    ("dimensions", "sizes", "said"),
    [
        (0, [4], r"'size' = 0\. Must be greater than 0"),
        (5, [4, 8], r"'size' = 5\. Supported values: \[4, 8, 12\]"),
        (13, [4], r"Must be less than or equal to 12\. Supported values: \[4, 12\]"),
        (4, [], "does not support specifying dimensions. Its vectors have 12"),
    ],
)
def test_other_sizes_are_refused_with_those_there_are(
    dimensions: int, sizes: list[int], said: str
) -> None:
    with pytest.raises(BadRequest, match=said):
        check_dimensions(dimensions, 12, sizes, "size")


def test_bytes_keep_each_vector_in_its_own_scale(vectors: np.ndarray) -> None:
    vectors = vectors * [[1], [10], [1e-3], [1], [1]]
    signed, unsigned = (quantize(vectors, dtype) for dtype in ("int8", "uint8"))
    assert (signed.dtype, unsigned.dtype) == (np.int8, np.uint8)
    assert np.abs(signed).max(axis=1).tolist() == [127] * 5
    assert np.array_equal(unsigned.astype(int), signed.astype(int) + 128)
    scale = np.abs(vectors).max(axis=1, keepdims=True) / 127
    assert np.abs(signed * scale - vectors).max() <= scale.max() / 2 + 1e-6


def test_bits_are_signs_the_first_in_the_highest_bit() -> None:
    vectors = np.array([[1, -1, 0, 2, -3, -1, -1, 1, 5]], dtype=np.float32)
    assert quantize(vectors, "ubinary").tolist() == [[0b10010001, 0b10000000]]
    assert quantize(vectors, "binary").tolist() == [[0b10010001 - 128, 0]]
