"""What one sample is made of, for one signal: stream, gates, head and draw.

All channel counts are padded with zeros to powers of two. Matrix products are sums of products in the weights'
precision, never TF32. Where matrices are read for every sample, they alternate between the two axes (gate channels,
others), so that what one sum leaves is spread over the threads as the next one wants it.
"""

import triton
import triton.language as tl


@triton.jit
def first_stream(
    weight,
    bias,
    out,
    signals,
    gain,
    coefficient,
    previous,
    t,
    INPUTS: tl.constexpr,
    TAPS: tl.constexpr,
    WINDOW: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """h_0 (WIDTH,) at time t. out: samples before t - 1, `previous` being that at t - 1; signals (T, INPUTS - 1)."""
    entry, column = tl.arange(0, WINDOW), tl.arange(0, WIDTH)
    channel, time = entry % INPUTS, t - (TAPS - 1) + entry // INPUTS
    own = (entry < TAPS * INPUTS) & (channel == 0)
    last = tl.load(out + time - 1, mask=own & (time >= 1) & (time < t), other=0.0)
    last = tl.where(own & (time == t), previous, last)
    before = tl.load(out + time - 2, mask=own & (time >= 2), other=0.0)
    beside = (entry < TAPS * INPUTS) & (channel > 0) & (time >= 0)
    given = tl.load(signals + time * (INPUTS - 1) + channel - 1, mask=beside, other=0.0)
    value = tl.where(own, gain * (last - coefficient * before), given)
    return tl.load(bias + column) + tl.sum(
        tl.load(weight + entry[:, None] * WIDTH + column[None, :]) * value[:, None], 0
    )


@triton.jit
def known_gates(
    weight,
    bias,
    frames,
    kernel,
    ring,
    t,
    dilation,
    row,
    FRAME: tl.constexpr,
    TAPS: tl.constexpr,
    HALF: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Both halves of rows `row` of a layer's gates, without the present tap: bias, conditioning, and the past.

    weight (TAPS, 2, HALF, WIDTH), bias (2, HALF); frames: the three around t, FRAME apart, with their shares `kernel`;
    ring ((TAPS - 1) dilation + 1, WIDTH).
    """
    column = tl.arange(0, WIDTH)
    content, gate = tl.load(bias + row), tl.load(bias + HALF + row)
    for i in tl.static_range(3):
        share = tl.load(kernel + i)
        content += share * tl.load(frames + i * FRAME + row)
        gate += share * tl.load(frames + i * FRAME + HALF + row)
    length = (TAPS - 1) * dilation + 1
    for tap in range(TAPS - 1):
        place = (t + length - (TAPS - 1 - tap) * dilation) % length
        past = tl.load(ring + place * WIDTH + column)[None, :]
        at = weight + (2 * tap * HALF + row[:, None]) * WIDTH + column[None, :]
        content += tl.sum(tl.load(at) * past, 1)
        gate += tl.sum(tl.load(at + HALF * WIDTH) * past, 1)
    return content, gate


@triton.jit
def gated(content, gate):
    """tanh(content) sigmoid(gate)."""
    return (2 * tl.sigmoid(2 * content) - 1) * tl.sigmoid(gate)


@triton.jit
def leaky(value, slope):
    """The leaky rectifier of wavenet.stack."""
    return tl.where(value > 0, value, slope * value)


@triton.jit
def head(
    total,
    hidden_weight,
    hidden_bias,
    output,
    output_bias,
    slope,
    SKIP: tl.constexpr,
    KINDS: tl.constexpr,
    COUNT_PADDED: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Outputs (COUNT_PADDED,) three times, the same where KINDS is 1, of rectified skips `total` (SKIP,).

    hidden_weight (SKIP, SKIP) by rows of outputs, output (KINDS, SKIP, COUNT_PADDED); ROWS: of both, held at a time.
    """
    skips, choice = tl.arange(0, SKIP), tl.arange(0, COUNT_PADDED)
    logits = tl.load(output_bias + choice)
    loc = tl.load(output_bias + (KINDS // 2) * COUNT_PADDED + choice)
    raw = tl.load(output_bias + (KINDS - 1) * COUNT_PADDED + choice)
    for first in range(0, SKIP, ROWS):
        row = first + tl.arange(0, ROWS)
        product = tl.sum(tl.load(hidden_weight + row[:, None] * SKIP + skips[None, :]) * total[None, :], 1)
        hidden = leaky(product + tl.load(hidden_bias + row), slope)[:, None]
        at = output + row[:, None] * COUNT_PADDED + choice[None, :]
        logits += tl.sum(tl.load(at) * hidden, 0)
        if KINDS == 3:
            loc += tl.sum(tl.load(at + SKIP * COUNT_PADDED) * hidden, 0)
            raw += tl.sum(tl.load(at + 2 * SKIP * COUNT_PADDED) * hidden, 0)
    return logits, loc, raw


@triton.jit
def chosen(logits, uniform, COUNT: tl.constexpr, COUNT_PADDED: tl.constexpr):
    """Index drawn from softmax(logits (COUNT_PADDED,)) by inverse CDF; the padding's logits are -inf."""
    edges = tl.cumsum(tl.exp(logits - tl.max(logits, 0)), 0)
    beyond = (uniform * tl.max(edges, 0) >= edges) & (tl.arange(0, COUNT_PADDED) < COUNT - 1)
    return tl.sum(beyond.to(tl.int32), 0)


@triton.jit
def likeliest(logits, COUNT_PADDED: tl.constexpr):
    """Index of the largest logit, the first of equals."""
    index = tl.arange(0, COUNT_PADDED)
    return tl.min(tl.where(logits == tl.max(logits, 0), index, COUNT_PADDED - 1), 0)


@triton.jit
def drawn(
    logits,
    loc,
    raw,
    noise,
    levels,
    numbers,
    previous,
    KINDS: tl.constexpr,
    COUNT: tl.constexpr,
    COUNT_PADDED: tl.constexpr,
    GRID: tl.constexpr,
    GREEDY: tl.constexpr,
):
    """The next sample: of a mixture or Gaussian (KINDS 3), or a class's level, the likeliest one with GREEDY."""
    if KINDS == 3:
        value = moved(logits, loc, raw, noise, numbers, previous, COUNT, COUNT_PADDED, GRID)
    elif GREEDY:
        value = tl.load(levels + likeliest(logits, COUNT_PADDED))
    else:
        value = tl.load(levels + chosen(logits, tl.load(noise), COUNT, COUNT_PADDED))
    return value


@triton.jit
def moved(
    logits, loc, raw, noise, numbers, previous, COUNT: tl.constexpr, COUNT_PADDED: tl.constexpr, GRID: tl.constexpr
):
    """A component, its deviate moved and scaled, with GRID the nearest level: mixture and (of one component) Gaussian.

    noise: the choice, the deviate. The scale, exp(floor + softplus(y - floor)), is e^floor + e^y.
    """
    mine = tl.arange(0, COUNT_PADDED) == chosen(logits, tl.load(noise), COUNT, COUNT_PADDED)
    dtype: tl.constexpr = loc.dtype
    inverse_gain, coefficient = tl.load(numbers + 1).to(dtype), tl.load(numbers + 2).to(dtype)
    floor, temperature = tl.load(numbers + 3).to(dtype), tl.load(numbers + 4).to(dtype)
    scale = floor + tl.exp(tl.sum(tl.where(mine, raw, 0.0), 0)) * inverse_gain
    value = tl.sum(tl.where(mine, loc, 0.0), 0) * inverse_gain + coefficient * previous
    value += temperature * scale * tl.load(noise + 1)
    if GRID:
        # float64: in float32 a sample near full scale would fall on its level's neighbour. A NaN stays one.
        step = tl.load(numbers + 5)
        exact = value.to(tl.float64)
        exact = tl.where(exact > 1, 1.0, tl.where(exact < -1, -1.0, exact))
        value = (tl.floor((exact + 1) / step + 0.5) * step - 1).to(dtype)
    return value
