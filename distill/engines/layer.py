"""One gated layer over a tile, compiled by numba: blocks of rows whose values stay in the nearest caches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wavenet.fused.activations import gated
from wavenet.fused.compilation import kept, ready, sources, whole_vectors
from wavenet.fused.products import PAD, address, matmul, size_of

Array = npt.NDArray[np.float32]
_ROWS = 64  # of a block: with 64 channels, its gates fill a first-level cache
_ROOT_HALF = 0.5**0.5


def prepare() -> None:
    """Have the layer compiled, or loaded, before the first is run."""
    row, line = np.zeros((1, PAD), np.float32), np.zeros(1, np.float32)
    ready(layer, line, line, row, row, line, line, row, 0, np.zeros(1, np.int64), 0, row, 0, row, row, 0)


def _compile() -> Any:
    version = sources()

    def layer(
        taps, bias, frames, kernel, residual, skip, seen, now, delays, channels, strip, place, after, total, gates
    ):
        """after <- sqrt(1/2) h + mix, total += skips, with h rows place, place + 1, ... of `strip` (rows, R).

        taps: panels (wavenet.fused.products) of (channels, gates) for each of `delays`, multiplied by rows now - delay,
        now - delay + 1, ... of `seen` (rows, channels): of `strip` itself, or of a first layer's inputs. residual,
        skip: of (gates / 2, R) and (gates / 2, S). bias (gates,). frames (n + 2, gates), kernel (hop, 3): conditioning.
        after (n hop, R), or no rows: the last layer. total (n hop, S). R, S and `seen` are padded in arrays.
        """
        version  # noqa: B018  compiled code on disk is found by it
        whole_vectors()
        zero, hop, half = strip.dtype.type(0), kernel.shape[0], gates // 2
        size, columns, wide, tall = size_of(zero), (gates + PAD - 1) // PAD * PAD, strip.shape[1], total.shape[1]
        seen_row = seen.shape[1]
        summed, content = np.zeros((_ROWS, columns), strip.dtype), np.zeros((_ROWS, half), strip.dtype)
        at_summed, at_content, root_half = address(summed), address(content), strip.dtype.type(_ROOT_HALF)
        for first in range(0, len(total), _ROWS):
            rows = min(_ROWS, len(total) - first)
            for row in range(rows):
                frame, phase = (first + row) // hop, (first + row) % hop
                a, b, c = kernel[phase]
                before, own, next_, mine = frames[frame], frames[frame + 1], frames[frame + 2], summed[row]
                for i in range(gates):
                    mine[i] = bias[i] + a * before[i] + b * own[i] + c * next_[i]
            w = address(taps)
            for delay in delays:
                x = address(seen) + (now + first - delay) * seen_row * size
                matmul(zero, rows, w, channels, columns, x, seen_row, at_summed, columns)
                w += channels * columns * size
            for row in range(rows):
                left, right, product = summed[row, :half], summed[row, half:gates], content[row]
                for i in range(half):
                    product[i] = gated(left[i], right[i])
            matmul(zero, rows, address(skip), half, tall, at_content, half, address(total) + first * tall * size, tall)
            if len(after) > 0:
                for row in range(rows):
                    held, result = strip[place + first + row], after[first + row]
                    for i in range(wide):
                        result[i] = root_half * held[i]
                matmul(
                    zero,
                    rows,
                    address(residual),
                    half,
                    wide,
                    at_content,
                    half,
                    address(after) + first * wide * size,
                    wide,
                )

    return kept(layer)


layer = _compile()
