"""Floats of 4 and 8 bits, as the modes mxfp4, mxfp8 and nvfp4 of MLX store values and scales.

A code is the number that the bits make. E2M1 has a sign, 2 bits of exponent and 1 of mantissa;
E4M3 has a sign, 4 and 3; E8M0 has 8 bits of exponent alone and holds powers of two.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]


def _with_signs(positive: Floats) -> Floats:
    """The values of all codes: the upper half of the codes is that of the negative numbers."""
    return np.concatenate([positive, -positive])


def _e4m3() -> Floats:
    """The values of the codes of E4M3; the last of each sign is no number, and none is infinite."""
    exponent, mantissa = np.divmod(np.arange(128), 8)
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    values = np.where(exponent > 0, normal, mantissa / 512).astype(np.float32)
    values[127] = np.nan
    return _with_signs(values)


def _e8m0() -> Floats:
    """The values of the codes of E8M0. MLX reads the last one as infinite."""
    values = np.ldexp(1.0, np.arange(256) - 127)
    values[255] = np.inf
    return values.astype(np.float32)


E2M1 = _with_signs(np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32))
E4M3 = _e4m3()
E8M0 = _e8m0()
"""The values of the 16 or 256 codes, by code."""


def nearest(values: Floats, table: Floats) -> Codes:
    """The codes of E2M1 or E4M3 whose values are nearest, the even one of two equally near ones.

    What exceeds the largest value gets its code. This is what MLX does on Metal; on its CPU, values
    in the middle of two of E2M1 are rounded to the smaller one.

    >>> nearest(np.array([0.7, 0.75, -1.25, 100], np.float32), E2M1).tolist()
    [1, 2, 10, 7]
    """
    sign = len(table) // 2
    positive = table[:sign][np.isfinite(table[:sign])]
    middles = (positive[1:] + positive[:-1]) / 2
    sizes = np.abs(values)
    codes: NDArray[Any] = np.searchsorted(middles, sizes)
    odd_and_between = (codes % 2 == 1) & (sizes == np.append(middles, np.inf)[codes])
    return (codes + odd_and_between + sign * np.signbit(values)).astype(np.uint8)


def next_power(values: Floats) -> Codes:
    """The codes of E8M0 of the smallest powers of two that are not below the values; 0 gets code 0.

    >>> next_power(np.array([1, 0.25, 3, 0], np.float32)).tolist()
    [127, 125, 129, 0]
    """
    with np.errstate(divide="ignore"):
        exponents = np.ceil(np.log2(values))
    return (exponents.clip(-127, 127) + 127).astype(np.uint8)
