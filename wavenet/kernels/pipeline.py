"""One program for each layer and one for the head, a signal's samples going through them in a circle.

Each program holds its layer's matrices in registers. What it sends to the next, its stream and the sum of skips, and
what the head sends back to the first, the sample, goes through memory as words of 64 bits: above, the sample's number
plus one, below, a float32. A word is written whole or not at all, so that whoever finds the number it waits for has the
value with it, and no fence or flag is needed (the low-latency protocol of NCCL). A word is written again one sample
later, which the head has let begin only after it, the last in the circle, had read its own: nothing unread is lost.

All programs must run at the same time: a cooperative launch, which the device refuses where they cannot.
"""

import triton
import triton.language as tl

from wavenet.kernels.pieces import drawn, first_stream, gated, known_gates, leaky


@triton.jit
def send(words, index, value, number):
    """Write float32 values as words of `number`."""
    low = value.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
    tl.store(words + index, (number.to(tl.int64) << 32) | low)


@triton.jit
def receive(words, number, SIZE: tl.constexpr, COPIES: tl.constexpr):
    """Wait for words (SIZE,) of `number`; their values.

    COPIES SIZE words are read, two by each thread of the program, and the least of the copies is taken: threads that
    hold the same number then hold it from one place, not from reads of their own at different times.
    """
    index = tl.arange(0, COPIES)[:, None] * 0 + tl.arange(0, SIZE)[None, :]
    word = tl.min(tl.load(words + index, volatile=True), 0)
    # Numbers are below 2^31, and the least of 32 bits takes half the exchanges that one of 64 does.
    while tl.min((word >> 32).to(tl.int32), 0) < number:
        word = tl.min(tl.load(words + index, volatile=True), 0)
    return word.to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def receive_one(words, number):
    """Wait for one word of `number`; its value."""
    word = tl.load(words, volatile=True)
    while (word >> 32) < number:
        word = tl.load(words, volatile=True)
    return word.to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["start", "stop", "length", "frame_count", "batch", "share"])
def circle(
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
    echo,
    streams,
    skips_sent,
    samples,
    start,
    stop,
    length,
    frame_count,
    batch,
    share,
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
    THREADS: tl.constexpr,
):
    """Fill out[:, start:stop] (B, T), grid (LAYERS + 1, groups), `share` signals to a group, which take turns.

    As wavenet.kernels.program.whole, in float32. echo (B, T): the first program's own copy of `out`. streams (LAYERS,
    B, WIDTH), skips_sent (LAYERS, B, SKIP), samples (B,): words, zero before the first sample. THREADS: of a program.
    """
    stage, first = tl.program_id(0), tl.program_id(1).to(tl.int64) * share
    count = tl.minimum(batch - first, share).to(tl.int32)
    column, skips, choice, row = tl.arange(0, WIDTH), tl.arange(0, SKIP), tl.arange(0, COUNT_PADDED), tl.arange(0, HALF)
    root, slope = tl.load(numbers + 6).to(tl.float32), tl.load(numbers + 7).to(tl.float32)
    gain, coefficient = tl.load(numbers).to(tl.float32), tl.load(numbers + 2).to(tl.float32)
    if stage < LAYERS:
        dilation = tl.load(dilations + stage)
        weight = gates + stage * (TAPS * 2 * HALF * WIDTH)
        # Transposed, so that all four products are summed over rows: compiled for compute capability 9.0, what a layer
        # does from the word it waits for to the one it sends is a third fewer instructions (not yet run on a GPU).
        at = weight + (2 * (TAPS - 1) * HALF + row[None, :]) * WIDTH + column[:, None]
        to_content, to_gate = tl.load(at), tl.load(at + HALF * WIDTH)
        below = (stage * HALF + row)[:, None]
        to_stream = tl.load(residual + below * WIDTH + column[None, :])
        to_skip = tl.load(skip_weight + below * SKIP + skips[None, :])
        bias = tl.load(residual_bias + stage * WIDTH + column)
        for item in range((stop - start) * count):
            t, n = start + item // count, first + item % count
            ring = rings + (n * SLOTS + tl.load(ring_at + stage)) * WIDTH
            content, gate = known_gates(
                weight,
                gates_bias + stage * 2 * HALF,
                frames + ((n * frame_count + t // HOP) * LAYERS + stage) * (2 * HALF),
                kernel + (t % HOP) * 3,
                ring,
                t,
                dilation,
                row,
                LAYERS * 2 * HALF,
                TAPS,
                HALF,
                WIDTH,
            )
            # All of the above is done while the sample is elsewhere in the circle.
            if stage == 0:
                previous = receive_one(samples + n, t)
                before = echo + n * length
                if t > 0:
                    tl.store(before + t - 1, previous)
                beside = signals + n * length * (INPUTS - 1)
                h = first_stream(
                    input_weight,
                    input_bias,
                    before,
                    beside,
                    gain,
                    coefficient,
                    previous,
                    t,
                    INPUTS,
                    TAPS,
                    WINDOW,
                    WIDTH,
                )
            else:
                h = receive(streams + ((stage - 1) * batch + n) * WIDTH, t + 1, WIDTH, 2 * THREADS // WIDTH)
            z = gated(content + tl.sum(to_content * h[:, None], 0), gate + tl.sum(to_gate * h[:, None], 0))[:, None]
            mixed = root * h + bias + tl.sum(to_stream * z, 0)
            send(streams + (stage * batch + n) * WIDTH, column, mixed, t + 1)
            # The next layer is at work by now; the skips are wanted by the head alone.
            total = tl.load(skip_bias + skips)
            if stage > 0:
                total = receive(skips_sent + ((stage - 1) * batch + n) * SKIP, t + 1, SKIP, 2 * THREADS // SKIP)
            send(skips_sent + (stage * batch + n) * SKIP, skips, total + tl.sum(to_skip * z, 0), t + 1)
            tl.store(ring + (t % ((TAPS - 1) * dilation + 1)) * WIDTH + column, h)
            tl.debug_barrier()  # rings and echo are read by other threads than wrote them
    else:
        to_hidden = tl.load(hidden_weight + skips[:, None] * SKIP + skips[None, :])
        hidden_start = tl.load(hidden_bias + skips)
        kinds = output + skips[:, None] * COUNT_PADDED + choice[None, :]
        to_logits = tl.load(kinds)
        to_loc, to_raw = to_logits, to_logits
        if KINDS == 3:
            to_loc, to_raw = tl.load(kinds + SKIP * COUNT_PADDED), tl.load(kinds + 2 * SKIP * COUNT_PADDED)
        for item in range((stop - start) * count):
            t, n = start + item // count, first + item % count
            logits, loc = tl.load(output_bias + choice), tl.load(output_bias + (KINDS // 2) * COUNT_PADDED + choice)
            raw = tl.load(output_bias + (KINDS - 1) * COUNT_PADDED + choice)
            previous = tl.load(out + n * length + t - 1, mask=t > 0, other=0.0)
            own = noise + (n * length + t) * CHANNELS
            total = receive(skips_sent + ((LAYERS - 1) * batch + n) * SKIP, t + 1, SKIP, 2 * THREADS // SKIP)
            hidden = hidden_start + tl.sum(to_hidden * leaky(total, slope)[None, :], 1)
            hidden = leaky(hidden, slope)[:, None]
            logits += tl.sum(to_logits * hidden, 0)
            if KINDS == 3:
                loc += tl.sum(to_loc * hidden, 0)
                raw += tl.sum(to_raw * hidden, 0)
            sample = drawn(logits, loc, raw, own, levels, numbers, previous, KINDS, COUNT, COUNT_PADDED, GRID, GREEDY)
            send(samples + n, 0, sample, t + 1)
            tl.store(out + n * length + t, sample)
            tl.debug_barrier()
