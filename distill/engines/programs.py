"""A flow's network over whole signals on a GPU, by Triton: one program enters it, one is each layer, one leaves it.

Rows are samples and columns channels, so that every convolution is a few products of (TILE, C) by (C, O) on tensor
cores. All channel counts are padded with zeros to powers of two. The stream between layers and the layers' matrices are
float16, in PARTS parts: 1, rounded, or 2, a value and what rounding it left out, together 22 bits of mantissa, of whose
four products the three that matter are summed. Sums, skips, conditioning, what enters and what leaves are float32, by
three products in TF32 (`tf32x3`) where they are products.
"""

import triton
import triton.language as tl

from wavenet.kernels.pieces import gated, leaky


@triton.jit
def softplus(value):
    """log(1 + e^value) without overflow."""
    return tl.maximum(value, 0.0) + tl.log(1 + tl.exp(-tl.abs(value)))


@triton.jit
def product(left, rest, weight, size, total, PARTS: tl.constexpr):
    """total + (left + rest) @ weight; weight: pointers to a float16 matrix, its second part `size` behind it."""
    first = tl.load(weight)
    total = tl.dot(left, first, total)
    if PARTS == 2:
        total = tl.dot(rest, first, total)
        total = tl.dot(left, tl.load(weight + size), total)
    return total


@triton.jit
def keep(stream, value, size, inside, PARTS: tl.constexpr):
    """Store float32 values as their parts, the second `size` behind the first."""
    first = value.to(tl.float16)
    tl.store(stream, first, mask=inside)
    if PARTS == 2:
        tl.store(stream + size, (value - first.to(tl.float32)).to(tl.float16), mask=inside)


@triton.jit(do_not_specialize=["length"])
def enter(
    signal,
    signals,
    stream,
    weight,
    bias,
    length,
    INPUTS: tl.constexpr,
    TAPS: tl.constexpr,
    WINDOW: tl.constexpr,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    TILE: tl.constexpr,
):
    """stream (PARTS, B, T, WIDTH) from signal (B, T), delayed by a sample, and signals (B, INPUTS - 1, T).

    weight (WINDOW, WIDTH): taps, oldest first, by inputs. grid (tiles, B), as everywhere here.
    """
    n, row = tl.program_id(1).to(tl.int64), tl.program_id(0) * TILE + tl.arange(0, TILE)
    entry, column = tl.arange(0, WINDOW), tl.arange(0, WIDTH)
    channel, time = (entry % INPUTS)[None, :], row[:, None] - (TAPS - 1) + (entry // INPUTS)[None, :]
    inside = (row < length)[:, None]
    wanted = inside & (entry < TAPS * INPUTS)[None, :]
    values = tl.load(signal + n * length + time - 1, mask=wanted & (channel == 0) & (time >= 1), other=0.0)
    beside = signals + (n * (INPUTS - 1) + channel - 1) * length + time
    values += tl.load(beside, mask=wanted & (channel > 0) & (time >= 0), other=0.0)
    first = tl.dot(values, tl.load(weight + entry[:, None] * WIDTH + column[None, :]), input_precision="tf32x3")
    at = stream + (n * length + row[:, None]) * WIDTH + column[None, :]
    size = tl.num_programs(1).to(tl.int64) * length * WIDTH
    keep(at, first + tl.load(bias + column)[None, :], size, inside, PARTS)


@triton.jit(do_not_specialize=["length", "frame_count", "place", "dilation"])
def layer(
    stream,
    after,
    total,
    gates,
    gates_bias,
    residual,
    residual_bias,
    skip,
    skip_bias,
    frames,
    kernel,
    length,
    frame_count,
    place,
    dilation,
    HOP: tl.constexpr,
    TAPS: tl.constexpr,
    LAYERS: tl.constexpr,
    HALF: tl.constexpr,
    WIDTH: tl.constexpr,
    SKIP: tl.constexpr,
    AROUND: tl.constexpr,
    PARTS: tl.constexpr,
    TILE: tl.constexpr,
    FIRST: tl.constexpr,
    LAST: tl.constexpr,
):
    """One gated block: after <- sqrt(1/2) h + mix z (LAST: nothing), total <- total + skips (FIRST: their biases).

    stream, after (PARTS, B, T, WIDTH); total (B, T, SKIP); frames (B, frame_count, LAYERS, 2, HALF) with the shares
    kernel (HOP, 3), of which layer `place` is this one; gates (PARTS, TAPS, 2, WIDTH, HALF), residual (PARTS, HALF,
    WIDTH), skip (PARTS, HALF, SKIP). AROUND: frames that a tile may see, padded.
    """
    n, begin = tl.program_id(1).to(tl.int64), tl.program_id(0) * TILE
    row, column, half, skips = begin + tl.arange(0, TILE), tl.arange(0, WIDTH), tl.arange(0, HALF), tl.arange(0, SKIP)
    inside = (row < length)[:, None]
    size = tl.num_programs(1).to(tl.int64) * length * WIDTH
    stream += n * length * WIDTH
    # Conditioning: a matrix of shares, three in a row, times the frames around this tile.
    around = tl.arange(0, AROUND)
    which = begin // HOP + around[None, :] - (row // HOP)[:, None]
    shares = tl.load(kernel + (row % HOP)[:, None] * 3 + which, mask=(which >= 0) & (which < 3), other=0.0)
    at = frames + (((n * frame_count + begin // HOP + around) * LAYERS + place) * 2 * HALF)[:, None] + half[None, :]
    known = (begin // HOP + around < frame_count)[:, None]
    content = tl.zeros((TILE, HALF), tl.float32) + tl.load(gates_bias + half)[None, :]
    gate = tl.zeros((TILE, HALF), tl.float32) + tl.load(gates_bias + HALF + half)[None, :]
    content = tl.dot(shares, tl.load(at, mask=known, other=0.0), content, input_precision="tf32x3")
    gate = tl.dot(shares, tl.load(at + HALF, mask=known, other=0.0), gate, input_precision="tf32x3")
    for tap in tl.static_range(TAPS):
        time = row - (TAPS - 1 - tap) * dilation
        at, known = stream + time[:, None] * WIDTH + column[None, :], (time >= 0)[:, None] & inside
        h = tl.load(at, mask=known, other=0.0)
        rest = h
        if PARTS == 2:
            rest = tl.load(at + size, mask=known, other=0.0)
        weight = gates + (2 * tap * WIDTH + column[:, None]) * HALF + half[None, :]
        content = product(h, rest, weight, TAPS * 2 * WIDTH * HALF, content, PARTS)
        gate = product(h, rest, weight + WIDTH * HALF, TAPS * 2 * WIDTH * HALF, gate, PARTS)
    z = gated(content, gate)
    own = z.to(tl.float16)
    left = (z - own.to(tl.float32)).to(tl.float16)
    if not LAST:
        exact = h.to(tl.float32)
        if PARTS == 2:
            exact += rest.to(tl.float32)
        mixed = 0.7071067811865476 * exact + tl.load(residual_bias + column)[None, :]
        weight = residual + half[:, None] * WIDTH + column[None, :]
        mixed = product(own, left, weight, HALF * WIDTH, mixed, PARTS)
        keep(after + (n * length + row[:, None]) * WIDTH + column[None, :], mixed, size, inside, PARTS)
    at = total + (n * length + row[:, None]) * SKIP + skips[None, :]
    if FIRST:
        summed = tl.zeros((TILE, SKIP), tl.float32) + tl.load(skip_bias + skips)[None, :]
    else:
        summed = tl.load(at, mask=inside, other=0.0)
    summed = product(own, left, skip + half[:, None] * SKIP + skips[None, :], HALF * SKIP, summed, PARTS)
    tl.store(at, summed, mask=inside)


@triton.jit(do_not_specialize=["length"])
def leave(
    total,
    signal,
    after,
    hidden,
    hidden_bias,
    output,
    output_bias,
    low,
    high,
    length,
    SKIP: tl.constexpr,
    KINDS: tl.constexpr,
    TILE: tl.constexpr,
):
    """after (B, T) = signal exp(log_scale) + loc, from the skips' sum: head, bounds and affine step of IAF.

    hidden (SKIP, SKIP) by inputs, output (SKIP, KINDS): loc and raw log scale, padded. low, high: log_scale_range.
    """
    n, row = tl.program_id(1).to(tl.int64), tl.program_id(0) * TILE + tl.arange(0, TILE)
    skips, kind, inside = tl.arange(0, SKIP), tl.arange(0, KINDS), row < length
    at = total + (n * length + row[:, None]) * SKIP + skips[None, :]
    summed = leaky(tl.load(at, mask=inside[:, None], other=0.0), 0.2)
    weight = tl.load(hidden + skips[:, None] * SKIP + skips[None, :])
    summed = leaky(tl.dot(summed, weight, input_precision="tf32x3") + tl.load(hidden_bias + skips)[None, :], 0.2)
    weight = tl.load(output + skips[:, None] * KINDS + kind[None, :])
    params = tl.dot(summed, weight, input_precision="tf32x3") + tl.load(output_bias + kind)[None, :]
    loc = tl.sum(tl.where(kind[None, :] == 0, params, 0.0), 1)
    raw = tl.sum(tl.where(kind[None, :] == 1, params, 0.0), 1)
    log_scale = low + softplus(high - softplus(high - raw) - low)
    given = tl.load(signal + n * length + row, mask=inside, other=0.0)
    tl.store(after + n * length + row, given * tl.exp(log_scale) + loc, mask=inside)
