"""One program for each signal, which loops over all samples; weights stream from the device's L2 cache."""

import triton
import triton.language as tl

from wavenet.kernels.pieces import drawn, first_stream, gated, head, known_gates, leaky


@triton.jit(do_not_specialize=["start", "stop", "length", "frame_count"])
def whole(
    input_weight,
    input_bias,
    gates,
    gates_bias,
    residual,
    residual_bias,
    skip_weight,
    skip_bias,
    hidden_weight,
    hidden_bias,
    output,
    output_bias,
    levels,
    dilations,
    ring_at,
    numbers,
    frames,
    kernel,
    signals,
    noise,
    rings,
    out,
    start,
    stop,
    length,
    frame_count,
    HOP: tl.constexpr,
    SLOTS: tl.constexpr,
    CHANNELS: tl.constexpr,
    INPUTS: tl.constexpr,
    TAPS: tl.constexpr,
    WINDOW: tl.constexpr,
    LAYERS: tl.constexpr,
    HALF: tl.constexpr,
    WIDTH: tl.constexpr,
    SKIP: tl.constexpr,
    KINDS: tl.constexpr,
    COUNT: tl.constexpr,
    COUNT_PADDED: tl.constexpr,
    GRID: tl.constexpr,
    GREEDY: tl.constexpr,
    ROWS: tl.constexpr,
    HEAD_ROWS: tl.constexpr,
):
    """Fill out[:, start:stop] (B, T), grid (B,).

    frames (B, frame_count, LAYERS, 2, HALF), kernel (HOP, 3), signals (B, T, INPUTS - 1), noise (B, T, CHANNELS), rings
    (B, SLOTS, WIDTH); weights as in wavenet.kernels.weights. ROWS, HEAD_ROWS: of a matrix, read at a time.
    """
    n = tl.program_id(0).to(tl.int64)
    out += n * length
    noise += n * length * CHANNELS
    signals += n * length * (INPUTS - 1)
    rings += n * SLOTS * WIDTH
    frames += n * frame_count * (LAYERS * 2 * HALF)
    column, skips = tl.arange(0, WIDTH), tl.arange(0, SKIP)
    dtype: tl.constexpr = out.dtype.element_ty
    gain, coefficient = tl.load(numbers).to(dtype), tl.load(numbers + 2).to(dtype)
    root, slope = tl.load(numbers + 6).to(dtype), tl.load(numbers + 7).to(dtype)
    previous = tl.load(out + start - 1, mask=start > 0, other=0.0)
    for t in range(start, stop):
        h = first_stream(
            input_weight, input_bias, out, signals, gain, coefficient, previous, t, INPUTS, TAPS, WINDOW, WIDTH
        )
        total = tl.load(skip_bias + skips)
        around, share = frames + (t // HOP) * (LAYERS * 2 * HALF), kernel + (t % HOP) * 3
        for layer in range(LAYERS):
            dilation = tl.load(dilations + layer)
            ring = rings + tl.load(ring_at + layer) * WIDTH
            tl.store(ring + (t % ((TAPS - 1) * dilation + 1)) * WIDTH + column, h)
            mixed = root * h + tl.load(residual_bias + layer * WIDTH + column)
            weight = gates + layer * (TAPS * 2 * HALF * WIDTH)
            for first in range(0, HALF, ROWS):
                row = first + tl.arange(0, ROWS)
                content, gate = known_gates(
                    weight,
                    gates_bias + layer * 2 * HALF,
                    around + layer * 2 * HALF,
                    share,
                    ring,
                    t,
                    dilation,
                    row,
                    LAYERS * 2 * HALF,
                    TAPS,
                    HALF,
                    WIDTH,
                )
                at = weight + (2 * (TAPS - 1) * HALF + row[:, None]) * WIDTH + column[None, :]
                content += tl.sum(tl.load(at) * h[None, :], 1)
                gate += tl.sum(tl.load(at + HALF * WIDTH) * h[None, :], 1)
                z = gated(content, gate)[:, None]
                at = (layer * HALF + row)[:, None]
                mixed += tl.sum(tl.load(residual + at * WIDTH + column[None, :]) * z, 0)
                total += tl.sum(tl.load(skip_weight + at * SKIP + skips[None, :]) * z, 0)
            h = mixed
        logits, loc, raw = head(
            leaky(total, slope),
            hidden_weight,
            hidden_bias,
            output,
            output_bias,
            slope,
            SKIP,
            KINDS,
            COUNT_PADDED,
            HEAD_ROWS,
        )
        own = noise + t * CHANNELS
        previous = drawn(logits, loc, raw, own, levels, numbers, previous, KINDS, COUNT, COUNT_PADDED, GRID, GREEDY)
        tl.store(out + t, previous)
        tl.debug_barrier()  # rings and out are read by other threads than wrote them
