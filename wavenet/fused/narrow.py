"""Weights of 24 bits: what one signal streams from a shared cache for every sample, in three quarters of the bytes.

A column of a matrix is kept as integers of 24 bits beside one scale, so that a weight is off by at most 2^-24 of its
column's largest, and half of that again when it is read as float32: about what a sum of products in float32 is rounded
by, unless the column's large weights meet inputs of zero. Four vectors, of sixteen columns where the processor has such
and as many are left, and of eight, make a panel. Each of the first three is a vector of 32-bit integers, whose low
bytes are the fourth's three bytes. They are not taken out: the upper 24 bits are chosen so that the whole integer, low
byte and all, comes next to its weight.

Sums run on the integers: inputs beyond 2^96 overflow, and of a column whose largest weight is below 2.5e-29 less is
left the smaller it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from wavenet.fused.compilation import helper
from wavenet.fused.products import Panel, matmul, padded, size_of

_SECOND_LEVEL = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")
_LEAST_WIDTH = 32  # columns of a panel of vectors of eight
_LARGEST = 2.0**31 - 2.0**9  # what a column's largest weight becomes: rounded, it still is an integer of 32 bits
_LEAST = float(np.finfo(np.float32).tiny) * 2.0**31  # of a column's largest weight: below, the scale would be none


def pays(dtype: type[np.floating[Any]], count: int) -> bool:
    """Whether `count` weights that every sample reads should be narrow on this processor.

    Where the processor has vectors of eight, for weights that a core's own cache does not hold, three quarters of it:
    what is read for a block of samples passes through the rest. Within it, taking them apart costs what bytes do.
    """
    return dtype == np.float32 and "+avx2" in _features() and 4 * count > 3 * second_level() // 4


def _features() -> list[str]:
    """Of the processor that numba compiles for."""
    features: list[str] = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return features


# Columns of the first panels of a matrix. Bytes are moved within vectors of sixteen by AVX-512 BW.
_WIDTH = 64 if "+avx512bw" in _features() else _LEAST_WIDTH


def second_level() -> int:
    """Bytes of the second-level cache, as Linux tells; elsewhere 512 KiB, the least that has been measured."""
    try:
        stated = _SECOND_LEVEL.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        stated = ""
    return int(stated[:-1]) << 10 if stated[-1:] == "K" and stated[:-1].isdigit() else 2**19


def narrow_panels(matrix: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """matrix (inputs, outputs) -> its panels, flat: integers, [input][three quarters of the outputs], and scales.

    A panel has 64 outputs where the processor's vectors are wide enough, or 32. A last one of 16 is as in
    wavenet.fused.products. Integers stand bit by bit in an array of float32.
    """
    columns, parts, at = padded(matrix.shape[1]), [], 0
    matrix = np.pad(matrix, [(0, 0), (0, columns - matrix.shape[1])])
    for width in (_WIDTH, _LEAST_WIDTH):
        while at + width <= columns:
            parts += _integers(matrix[:, at : at + width])
            at += width
    return np.concatenate([*parts, matrix[:, at:].astype(np.float32).reshape(-1)])


def _integers(panel: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
    """The integers and the scales of a panel (inputs, columns)."""
    largest = np.abs(panel).max(0)
    scale = (np.maximum(largest, _LEAST) / _LARGEST).astype(np.float32)
    with np.errstate(invalid="ignore"):  # of a broken network: its scales are NaN or infinity, and will show
        first, fourth = np.split(panel / scale, [_stored(panel.shape[1])], 1)
        fourth = np.round(fourth / 256).astype(np.int64)
        low = np.hstack([fourth >> shift & 255 for shift in (16, 8, 0)])
        integers = np.round((first - low) / 256).astype(np.int64) * 256 + low
    # A column of zeros, as padding is, stays one: its integers may have low bytes.
    return [integers.astype(np.int32).reshape(-1).view(np.float32), np.where(largest == 0, np.float32(0), scale)]


def _stored(width: int) -> int:
    """Words of 32 bits for an input's `width` weights."""
    return 3 * width // 4


class _Narrow(Panel):
    """A panel of integers: sums begin with zero and end with the scale."""

    def begin(self, y: Any, place: Any) -> Any:
        """Zero."""
        return ir.Constant(self.vector, None)

    def weights(self, w: Any, start: Any) -> list[Any]:
        """Three vectors as they stand, and one of their low bytes: the first's is the highest."""
        builder, words = self.builder, ir.VectorType(ir.IntType(32), self.lanes)
        octets = ir.VectorType(ir.IntType(8), 4 * self.lanes)
        nothing, fourth = ir.Constant(octets, None), ir.Constant(words, None)
        vectors = []
        for part in range(3):
            loaded = self.load(w, builder.add(start, self.index(part * self.lanes)))
            vectors.append(builder.bitcast(loaded, words))
            # Byte 3 - part of every word is its byte 0, the others are `nothing`'s.
            places = [at - at % 4 if at % 4 == 3 - part else 4 * self.lanes for at in range(4 * self.lanes)]
            mask = ir.Constant(ir.VectorType(self.lane, 4 * self.lanes), places)
            moved = builder.shuffle_vector(builder.bitcast(loaded, octets), nothing, mask)
            fourth = builder.or_(fourth, builder.bitcast(moved, words))
        return [builder.sitofp(vector, self.vector) for vector in (*vectors, fourth)]

    def end(self, total: Any, behind: Any, part: int, y: Any, place: Any) -> Any:
        """y and the scaled sum."""
        scale = self.load(behind, self.index(part * self.lanes))
        return self.multiply_add(total, scale, self.load(y, place))


def _multiplier(width: int) -> Any:
    """The intrinsic y[:width] += x[:n] w, of one panel, all by address."""

    def multiply(typing: Any, zero: Any, w: Any, x: Any, y: Any, n: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if isinstance(signature.args[0], types.Float) and signature.args[0].bitwidth == 32:
                w, x, y = (builder.inttoptr(at, ir.FloatType().as_pointer()) for at in arguments[1:4])
                index = ir.IntType(64)
                panel = _Narrow(builder, ir.FloatType(), width // 4, 1, 4, 2)
                panel.emit(w, index(_stored(width)), x, index(0), y, index(0), arguments[4])
            return context.get_dummy_value()

        return types.void(zero, *[types.intp] * 4), codegen

    return intrinsic(multiply)


_panel, _least_panel = _multiplier(_WIDTH), _multiplier(_LEAST_WIDTH)


@helper
def narrow_matmul(zero, w, n, columns, x, y):
    """y[:columns] += x[:n] w, one row, float32, with w in narrow panels."""
    size, at = size_of(zero), 0
    while at + _WIDTH <= columns:
        _panel(zero, w, x, y + at * size, n)
        w += narrow_size(n, _WIDTH) * size
        at += _WIDTH
    if at + _LEAST_WIDTH <= columns:
        _least_panel(zero, w, x, y + at * size, n)
        w += narrow_size(n, _LEAST_WIDTH) * size
        at += _LEAST_WIDTH
    if at < columns:
        matmul(zero, 1, w, n, columns - at, x, n, y + at * size, columns)


@helper
def narrow_size(n, columns):
    """Words of 32 bits that a matrix takes in narrow panels."""
    whole = columns // _LEAST_WIDTH * _LEAST_WIDTH
    return 3 * whole // 4 * n + whole + (columns - whole) * n
