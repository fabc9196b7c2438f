"""The gated activation of a tile in one pass over memory, compiled by numba."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wavenet.fused.activations import gated as product
from wavenet.fused.compilation import kept, sources

Array = npt.NDArray[np.float32]


def _compile() -> Any:
    version = sources()

    def gate(gates: Array, frames: Array, kernel: Array, bias: Array, gated: Array) -> None:
        """gated = tanh(a + c_a) sigmoid(b + c_b), c = bias + the three frames around each sample, interpolated.

        gates (n hop, 2 C): a and b side by side, overwritten. frames (n + 2, 2 C) and kernel (3, hop) as in
        Conditioning, bias (2 C,). gated (n hop, C) is written. All contiguous, or the loops are not vectorised.
        """
        version  # noqa: B018  compiled code on disk is found by it
        hop, channels = kernel.shape[1], gated.shape[1]
        for row in range(len(gates)):
            frame = row // hop
            place = row - frame * hop
            before, own, after = kernel[0, place], kernel[1, place], kernel[2, place]
            # Two loops: in one, there are too many arrays for the compiler to see that none overlaps another.
            for i in range(2 * channels):
                gates[row, i] += (
                    bias[i] + before * frames[frame, i] + own * frames[frame + 1, i] + after * frames[frame + 2, i]
                )
            for i in range(channels):
                gated[row, i] = product(gates[row, i], gates[row, i + channels])

    return kept(gate)


gate = _compile()
