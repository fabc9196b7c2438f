"""What a recorded block launches for each sample: one program grid a layer, and one between a sample and the next.

A row has every layer's gates and stream side by side (wavenet.sampling.composition); rows are (block, B, W), those of a
sample `step` apart and those of a signal W. Each program has a tile of a matrix in its registers for a few signals.
What two programs of a launch write is never the same, and none reads what another one of its launch writes. Threads of
one program are another matter: what is stored and then loaded again comes to other ones, and wants a barrier between.
"""

import triton
import triton.language as tl

from wavenet.kernels.pieces import drawn, gated, head, leaky


@triton.jit(do_not_specialize=["batch"])
def layer_row(
    row,
    push,
    wave,
    entry,
    batch,
    columns,
    stride,
    wave_stride,
    START: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PADDED: tl.constexpr,
    WINDOW: tl.constexpr,
    WINDOW_PADDED: tl.constexpr,
    TILE: tl.constexpr,
    SIGNALS: tl.constexpr,
):
    """Add to the `columns` of a row from START on what its first 2 HALF, a layer's gates, push there.

    row: where the layer's gates begin, signals `stride` apart; push (HALF, columns). With WINDOW, the first layer: its
    gates and all the columns lack what the last WINDOW samples, at `wave`, add by entry (WINDOW, START + columns).
    Grid: tiles of columns, groups of SIGNALS.
    """
    index, column = tl.arange(0, HALF_PADDED), tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside, there = index < HALF, column < columns
    at = push + index[:, None] * columns + column[None, :]
    matrix = tl.load(at, mask=inside[:, None] & there[None, :], other=0.0)
    first = tl.program_id(1).to(tl.int64) * SIGNALS
    for n in range(first, tl.minimum(first + SIGNALS, batch)):
        own = row + n * stride
        content = tl.load(own + index, mask=inside, other=0.0)
        gate = tl.load(own + HALF + index, mask=inside, other=0.0)
        total = tl.load(own + START + column, mask=there, other=0.0)
        if WINDOW > 0:
            tap = tl.arange(0, WINDOW_PADDED)
            known = tap < WINDOW
            sample = tl.load(wave + n * wave_stride + tap, mask=known, other=0.0)[:, None]
            line = entry + tap[:, None] * (START + columns)
            half, tile = known[:, None] & inside[None, :], known[:, None] & there[None, :]
            content += tl.sum(sample * tl.load(line + index[None, :], mask=half, other=0.0), 0)
            gate += tl.sum(sample * tl.load(line + HALF + index[None, :], mask=half, other=0.0), 0)
            total += tl.sum(sample * tl.load(line + START + column[None, :], mask=tile, other=0.0), 0)
        total += tl.sum(matrix * gated(content, gate)[:, None], 0)
        tl.store(own + START + column, total, mask=there)


@triton.jit(do_not_specialize=["i", "batch"])
def between_rows(
    rows,
    noise,
    wave,
    hidden_weight,
    hidden_bias,
    output,
    output_bias,
    levels,
    numbers,
    past,
    rings,
    ring_at,
    dilations,
    clock,
    i,
    batch,
    wave_stride,
    SLOTS: tl.constexpr,
    CHANNELS: tl.constexpr,
    TAPS: tl.constexpr,
    LAYERS: tl.constexpr,
    GATES: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDTH_PADDED: tl.constexpr,
    SKIPS: tl.constexpr,
    SKIP: tl.constexpr,
    KINDS: tl.constexpr,
    COUNT: tl.constexpr,
    COUNT_PADDED: tl.constexpr,
    GRID: tl.constexpr,
    GREEDY: tl.constexpr,
    HEAD_ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    SIGNALS: tl.constexpr,
):
    """Sample i of a block from the skips of its row, and the delayed taps of row i + 1; i = -1 before the first.

    Grid (batch + LAYERS tiles groups,): a program for each signal's head, then those of each layer's taps by tiles of
    GATES and groups of SIGNALS. noise (BLOCK, B, CHANNELS); wave: the sample before the block's first, signals
    `wave_stride` apart; past (LAYERS, TAPS - 1, WIDTH, GATES), the oldest tap first; rings (B, SLOTS, WIDTH), layer
    l's (TAPS - 1) dilations[l] slots from ring_at[l] on: streams of earlier blocks. clock: the block's first sample.
    Weights of the head as in wavenet.kernels.weights, SKIP and COUNT_PADDED being padded sizes, SKIPS the size itself.
    """
    program = tl.program_id(0)
    dtype: tl.constexpr = rows.dtype.element_ty
    layer_width: tl.constexpr = GATES + WIDTH
    stride: tl.constexpr = LAYERS * layer_width + SKIPS
    step = batch.to(tl.int64) * stride
    if program < batch:
        if i >= 0:
            n = program.to(tl.int64)
            skips = tl.arange(0, SKIP)
            at = rows + i * step + n * stride + LAYERS * layer_width + skips
            slope = tl.load(numbers + 7).to(dtype)
            total = leaky(tl.load(at, mask=skips < SKIPS, other=0.0), slope)
            logits, loc, raw = head(
                total,
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
            own, last = noise + (i * batch + n) * CHANNELS, wave + n * wave_stride + i
            value = drawn(
                logits, loc, raw, own, levels, numbers, tl.load(last), KINDS, COUNT, COUNT_PADDED, GRID, GREEDY
            )
            tl.store(last + 1, value)
    else:
        tiles: tl.constexpr = (GATES + TILE - 1) // TILE
        place = program - batch
        layer, tile = (place // tiles) % LAYERS, place % tiles
        first = (place // (tiles * LAYERS)).to(tl.int64) * SIGNALS
        stop = tl.minimum(first + SIGNALS, batch)
        index, column = tl.arange(0, WIDTH_PADDED), tile * TILE + tl.arange(0, TILE)
        inside, there = index < WIDTH, column < GATES
        dilation, start = tl.load(dilations + layer), tl.load(clock)
        length = (TAPS - 1) * dilation
        ring = rings + tl.load(ring_at + layer).to(tl.int64) * WIDTH + index
        stream = rows + layer * layer_width + GATES + index
        # A slot that is written here is read by none of this launch: a ring's oldest stream was row i's to read.
        for n in range(first, tl.where((tile == 0) & (i >= 0), stop, first)):
            made = tl.load(stream + i * step + n * stride, mask=inside, other=0.0)
            tl.store(ring + (n * SLOTS + (start + i) % length) * WIDTH, made, mask=inside)
        for tap in tl.static_range(TAPS - 1):
            if tap > 0:
                tl.debug_barrier()  # the sums of the tap before are read by other threads than wrote them
            at = past + ((layer * (TAPS - 1) + tap) * WIDTH + index[:, None]) * GATES + column[None, :]
            matrix = tl.load(at, mask=inside[:, None] & there[None, :], other=0.0)
            row = i + 1 - (TAPS - 1 - tap) * dilation  # before the block, where it is negative
            slot = (start + row + length) % length
            for n in range(first, tl.where(i + 1 < BLOCK, stop, first)):
                h = tl.load(stream + row * step + n * stride, mask=inside & (row >= 0), other=0.0)
                h += tl.load(ring + (n * SLOTS + slot) * WIDTH, mask=inside & (row < 0), other=0.0)
                to = rows + (i + 1) * step + n * stride + layer * layer_width + column
                added = tl.load(to, mask=there, other=0.0) + tl.sum(matrix * h[:, None], 0)
                tl.store(to, added, mask=there)
