r"""The loop over samples, in lockstep for a few signals at once.

Only the current tap of each dilated convolution and the projection to residual and skip have to wait for the sample
before. Everything else is added ahead of time to `ahead` (BLOCK, N, L, gates), for as many samples as are known: the
conditioning, blended from three frames, for a whole block, and a tap of delay d for min(d, BLOCK) samples, as its
inputs are known d samples ahead, in one small matrix product that reads its weights once. That is exact, and leaves
about half of the weights to be streamed for every sample. N signals in lockstep stream them once for all.

The first layer's gates are one product of a few inputs (wavenet.fused.matrices), without taps or ring.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from wavenet.fused.compilation import helper, kept, sources
from wavenet.fused.draws import CLASSES, GAUSSIAN, INVERSE, MIXTURE, bounded, classes, gaussian, mixture
from wavenet.fused.narrow import narrow_matmul, narrow_size
from wavenet.fused.products import address, matmul, size_of
from wavenet.fused.rows import blend, clear, copy, gate, rectify, scale

Array = Any  # numba has its own idea of arrays


class Sizes(NamedTuple):
    """Channels of the network, `gates` counting both halves; taps: kernel size. Those in columns are padded.

    inputs: with one beside them that is 1 from the first sample on, as silence before it has no bias.
    """

    inputs: int
    residual: int
    gates: int
    skip: int
    outputs: int
    taps: int
    narrow: int  # 1: what every sample reads is in narrow panels, for one signal


class Weights(NamedTuple):
    """Packed weights (wavenet.fused.weights). dilations (L,)."""

    dilations: Array
    input: Array
    past: Array  # [layer - 1][tap] in panels
    present: Array  # [layer], in panels: the present tap's [first layer: of all inputs], to residual and skip, scaled
    gate_bias: Array  # (L gates padded,)
    mix_bias: Array  # (L, residual)
    skip_bias: Array  # (skip,): the sum over layers
    hidden: Array
    hidden_bias: Array
    output: Array
    output_bias: Array


class Drive(NamedTuple):
    """What the network is driven by, whole signals: frames (N, F + 2, L gates padded), kernel (hop, 3), both empty
    without conditioning; signals (N, T, inputs - 2); noise (N, T, n); given (N, T): what is forced or inverted."""

    frames: Array
    kernel: Array
    signals: Array
    noise: Array
    given: Array


class Law(NamedTuple):
    """How outputs become samples. gain and coefficient: of the pre-emphasis; floor: under the log scales; step: of the
    grid; low, high: the range of a flow's log scales; levels (Q,): samples of mu-law classes."""

    kind: int
    gain: float = 1.0
    log_gain: float = 0.0
    coefficient: float = 0.0
    floor: float = 0.0
    temperature: float = 1.0
    step: float = 0.0
    low: float = 0.0
    high: float = 0.0
    levels: Array = np.zeros(0)


class State(NamedTuple):
    """What is carried from one call to the next: rings (rows, residual), where each layer's begins (L + 1,) [rows of
    all signals] (the first layer's has none), the last inputs (N, window), the last two samples (N, 2), sums of log
    scales (N,)."""

    rings: Array
    ring_at: Array
    inputs: Array
    last: Array
    log_scales: Array


class Room(NamedTuple):
    """What a call works in, kept by its caller: numba frees an array after its last mention, and an address is none.

    ahead (BLOCK, N, L gates padded); stream (N, residual and skip padded): the residual stream, beside it the sum of
    skips; content (N, gates / 2); hidden (N, skip padded); outputs (N, outputs padded). Zeros where padded.
    """

    ahead: Array
    stream: Array
    content: Array
    hidden: Array
    outputs: Array


SLOPE = 0.2  # of the leaky rectifiers in wavenet.stack
_ROOT_HALF = 0.5**0.5


@helper
def _padded(columns):
    return (columns + 15) // 16 * 16


@helper
def _condition(zero, t, rows, signals, columns, width, bias, driven, ahead):
    """Begin `ahead` for samples t, t + 1, ...: the bias, and three frames weighted by their kernel, layer by layer.

    driven: the address of the frames, their number, the address of the kernel, and its rows.
    """
    size = size_of(zero)
    frames, frame_count, kernel, hop = driven
    for first in range(0, width, columns):
        here = first * size
        for row in range(rows):
            share = kernel + (t + row) % hop * 3 * size
            for n in range(signals):
                three = frames + (n * frame_count + (t + row) // hop) * width * size
                y = ahead + (row * signals + n) * width * size
                blend(zero, columns, share, bias + here, three + here, width, y + here)


@helper
def _past(zero, rows, signals, w, residual, columns, ring, place, length, ahead, width):
    """Add one tap to `rows` samples of `ahead`: its inputs stand at `place` of the ring, and from there on."""
    size, whole = size_of(zero), min(rows, length - place)  # before the ring's end
    x = ring + place * signals * residual * size
    matmul(zero, whole * signals, w, residual, columns, x, residual, ahead, width)
    if whole < rows:
        rest = ahead + whole * signals * width * size
        matmul(zero, (rows - whole) * signals, w, residual, columns, ring, residual, rest, width)


@helper
def _stream(zero, sizes, signals, w, n, columns, x, x_row, y, y_row):
    """y += x w, with weights that every sample reads; where those behind them begin."""
    if sizes.narrow:
        narrow_matmul(zero, w, n, columns, x, y)
        return w + narrow_size(n, columns) * size_of(zero)
    matmul(zero, signals, w, n, columns, x, x_row, y, y_row)
    return w + n * columns * size_of(zero)


@helper
def _next(t, n, law, drive, shift, outputs, scratch, log_scales):
    """The next sample of signal n from its outputs."""
    if law.kind == MIXTURE:
        return mixture(outputs[n], law, shift, drive.noise[n, t, 0], drive.noise[n, t, 1], scratch)
    if law.kind == GAUSSIAN:
        return gaussian(outputs[n], law, shift, drive.noise[n, t, 0])
    if law.kind == CLASSES:
        return classes(outputs[n], law, drive.noise[n, t, 0], scratch)
    if law.kind == INVERSE:
        log_scale = bounded(outputs[n, 1], law)
        log_scales[n] += log_scale
        return (drive.given[n, t] - outputs[n, 0]) * math.exp(-log_scale)
    return np.float64(drive.given[n, t])  # FORCED


def _compile() -> Any:
    version = sources()

    def run(sizes, weights, drive, law, state, room, start, stop, out, record):
        """Fill out[:, start:stop] (N, T), and with record (N, T, O) not empty the outputs beside it."""
        version  # noqa: B018  compiled code on disk is found by it
        signals, layers, block, dtype = out.shape[0], len(weights.dilations), room.ahead.shape[0], out.dtype
        zero, residual, skip, half, taps = dtype.type(0), sizes.residual, sizes.skip, sizes.gates // 2, sizes.taps
        size, columns, to_skip = size_of(zero), _padded(sizes.gates), _padded(residual)
        mixed, width = to_skip + _padded(skip), layers * columns
        window, heard = (2 * taps - 1) * sizes.inputs, taps * sizes.inputs  # by the first layer, by the input's
        to_hidden, to_outputs = _padded(skip), _padded(sizes.outputs)
        scratch = np.empty(sizes.outputs, dtype)
        length = np.empty(layers, np.int64)
        place = np.empty(layers, np.int64)  # of the present sample in each ring
        for layer in range(1, layers):
            length[layer] = (state.ring_at[layer + 1] - state.ring_at[layer]) // signals
            place[layer] = start % length[layer]
        root_half, slope = dtype.type(_ROOT_HALF), dtype.type(SLOPE)
        # From here to the draw everything goes by addresses (wavenet.fused.rows): a tenth of the time.
        at_ahead, at_stream, at_content = address(room.ahead), address(room.stream), address(room.content)
        at_hidden, at_outputs, at_inputs = address(room.hidden), address(room.outputs), address(state.inputs)
        driven = address(drive.frames), drive.frames.shape[1], address(drive.kernel), drive.kernel.shape[0]
        at_rings = address(state.rings)
        at_input, at_present, at_past = address(weights.input), address(weights.present), address(weights.past)
        at_head, at_output, at_skip = address(weights.hidden), address(weights.output), at_stream + to_skip * size
        gate_bias, mix_bias = address(weights.gate_bias), address(weights.mix_bias)
        skip_bias = address(weights.skip_bias)
        hidden_bias, output_bias = address(weights.hidden_bias), address(weights.output_bias)
        dilations, ring_at, beside, outputs = weights.dilations, state.ring_at, drive.signals, room.outputs
        inputs, last = state.inputs, state.last
        for t in range(start, stop):
            i = (t - start) % block
            if i == 0:
                rows = min(block, stop - t)
                if driven[3] > 0:
                    _condition(zero, t, rows, signals, columns, width, gate_bias, driven, at_ahead)
                else:
                    for row in range(rows * signals):
                        copy(zero, width, gate_bias, at_ahead + row * width * size)
            for n in range(signals):
                for j in range(window - sizes.inputs):
                    inputs[n, j] = inputs[n, j + sizes.inputs]
                inputs[n, window - sizes.inputs] = law.gain * (last[n, 0] - law.coefficient * last[n, 1])
                for j in range(1, sizes.inputs - 1):
                    inputs[n, window - sizes.inputs + j] = beside[n, t, j - 1]
                inputs[n, window - 1] = 1
                row = n * mixed * size
                clear(zero, residual, at_stream + row)
                copy(zero, skip, skip_bias, at_skip + row)
            last_inputs = at_inputs + (window - heard) * size
            matmul(zero, signals, at_input, heard, to_skip, last_inputs, window, at_stream, mixed)
            w = at_present
            for layer in range(layers):
                gates = at_ahead + (i * signals * layers + layer) * columns * size
                if layer == 0:
                    w = _stream(zero, sizes, signals, w, window, columns, at_inputs, window, gates, width)
                elif taps > 1:
                    here, ring = place[layer], at_rings + ring_at[layer] * residual * size
                    for tap in range(taps - 1):
                        delay = (taps - 1 - tap) * dilations[layer]
                        group = min(delay, block)
                        if i % group == 0:  # whose inputs have just become known
                            rows = min(min(group, block - i), stop - t)
                            old = at_past + ((layer - 1) * (taps - 1) + tap) * residual * columns * size
                            back = here - delay + (length[layer] if here < delay else 0)
                            _past(zero, rows, signals, old, residual, columns, ring, back, length[layer], gates, width)
                    for n in range(signals):
                        row = ring + (here * signals + n) * residual * size
                        copy(zero, residual, at_stream + n * mixed * size, row)
                    place[layer] = here + 1 if here + 1 < length[layer] else 0
                if layer > 0:
                    w = _stream(zero, sizes, signals, w, residual, columns, at_stream, mixed, gates, width)
                for n in range(signals):
                    gate(zero, half, gates + n * width * size, at_content + n * half * size)
                    bias = mix_bias + layer * residual * size
                    scale(zero, residual, root_half, bias, at_stream + n * mixed * size)
                if layer + 1 < layers:
                    w = _stream(zero, sizes, signals, w, half, mixed, at_content, half, at_stream, mixed)
                else:  # nothing reads the last residual
                    _stream(zero, sizes, signals, w, half, mixed - to_skip, at_content, half, at_skip, mixed)
            for n in range(signals):
                row = n * mixed * size
                rectify(zero, skip, slope, at_skip + row)
                copy(zero, skip, hidden_bias, at_hidden + n * to_hidden * size)
                copy(zero, sizes.outputs, output_bias, at_outputs + n * to_outputs * size)
            _stream(zero, sizes, signals, at_head, skip, to_hidden, at_skip, mixed, at_hidden, to_hidden)
            for n in range(signals):
                row = n * to_hidden * size
                rectify(zero, skip, slope, at_hidden + row)
            _stream(zero, sizes, signals, at_output, skip, to_outputs, at_hidden, to_hidden, at_outputs, to_outputs)
            for n in range(signals):
                if record.shape[1] > 0:
                    record[n, t] = outputs[n, : sizes.outputs]
                shift = law.coefficient * last[n, 0]
                out[n, t] = _next(t, n, law, drive, shift, outputs, scratch, state.log_scales)
                last[n, 1] = last[n, 0]
                last[n, 0] = out[n, t]

    return kept(run)


run = _compile()
