"""The network's nonlinearities, one implementation for float32 that vectorises, one for float64 that is exact."""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

from wavenet.fused.compilation import helper

_float = np.float32
_TANH_IS_ONE = 7.9053111  # beyond it the rational function would turn
_LOG2E = 1.44269504088896341
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4  # their sum is ln 2; the first has few bits (Cody and Waite)


@helper
def _tanh_parts(x):
    """Numerator and denominator of the 13/6 rational minimax approximation of tanh, float32; 3e-7 off at most."""
    x = min(max(x, _float(-_TANH_IS_ONE)), _float(_TANH_IS_ONE))
    s = x * x
    p = s * _float(-2.76076847742355e-16) + _float(2.00018790482477e-13)
    p = s * p + _float(-8.60467152213735e-11)
    p = s * p + _float(5.12229709037114e-08)
    p = s * p + _float(1.48572235717979e-05)
    p = s * p + _float(6.37261928875436e-04)
    p = s * p + _float(4.89352455891786e-03)
    q = s * _float(1.19825839466702e-06) + _float(1.18534705686654e-04)
    q = s * q + _float(2.26843463243900e-03)
    q = s * q + _float(4.89352518554385e-03)
    return x * p, q


def gated(content, gate):
    """tanh(content) sigmoid(gate)."""
    return math.tanh(content) / (1 + math.exp(-gate))


def exponential(x):
    """e^x for x <= 0; where that is below the smallest normal number, that number in place of it."""
    return math.exp(x)


@overload(gated)
def _gated(content, gate):
    if content == types.float32:

        def single(content, gate):
            # sigmoid(g) = (1 + tanh(g / 2)) / 2, so that one division does for both.
            p, q = _tanh_parts(content)
            r, s = _tanh_parts(gate * _float(0.5))
            return _float(0.5) * p * (s + r) / (q * s)

        return single

    def double(content, gate):
        return math.tanh(content) / (1 + math.exp(-gate))

    return double


@overload(exponential)
def _exponential(x):
    if x == types.float32:

        def single(x):
            # 2^n e^r with |r| <= ln 2 / 2, e^r by a polynomial of degree 6, 2^n written into the exponent's bits.
            x = max(x, _float(-87.0))
            n = np.floor(x * _float(_LOG2E) + _float(0.5))
            r = x - n * _float(_LN2_HIGH) - n * _float(_LN2_LOW)
            p = r * _float(1.9875691500e-4) + _float(1.3981999507e-3)
            p = r * p + _float(8.3334519073e-3)
            p = r * p + _float(4.1665795894e-2)
            p = r * p + _float(1.6666665459e-1)
            p = r * p + _float(5.0000001201e-1)
            p = r * r * p + r + _float(1.0)
            bits = np.int32((np.int32(n) + np.int32(127)) << np.int32(23))
            return p * bits.view(np.float32)

        return single

    def double(x):
        return math.exp(x)

    return double


@helper
def leaky(x, slope):
    """x above 0, slope x below."""
    return x if x > 0 else slope * x


@helper
def soft_floor(value, floor):
    """floor + softplus(value - floor), as wavenet.layers.soft_floor."""
    above = value - floor
    return floor + max(above, 0.0) + math.log1p(math.exp(-abs(above)))
