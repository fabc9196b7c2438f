r"""Flows tile by tile: what a tile of samples needs stays in the processor's cache through a whole flow.

Rows are samples and columns channels, so that a convolution of k taps is k products of (tile, C) by (C, O), and every
layer but the first keeps the (k - 1) dilation rows before the tile: nothing is computed twice and the result is that of
the whole signal. Two folds leave a layer k + 2 products and one pass for the gate, in compiled code (layer.py):

    constants   h_l = g_l + c_l with c_{l+1} = sqrt(1/2) (c_l + residual bias): a layer's biases and what they add to
                the next layers are one constant on its gates. Before the first sample h is 0, so g is -c_l there.
    scales      sqrt(1/2) of the residual sum and 1 / sqrt(L) of the skips are in the weights.

The first layer's taps are one product of a few inputs (wavenet.fused.matrices); the residual stream begins beside it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.engines import layer as compiled
from distill.engines.layer import Array
from distill.flows.autoregressive import IAF
from wavenet.fused.matrices import Floats, bias, entry, in_one, matrices
from wavenet.fused.products import padded, panels
from wavenet.layers import GatedBlock, shift_right
from wavenet.upsample import Conditioning

_WORTH = 4  # times what a part computes twice, at least, is what it computes
_TILE = 1024  # samples, about: of 256 to 2048, measured at 64 channels, none is 5% faster


class TiledFlows:
    """signal (B, T), Conditioning of the same T -> signal (B, T), through every IAF of `flows`, on a CPU in float32."""

    def __init__(self, flows: list[IAF]) -> None:
        self._flows = [_TiledFlow(flow) for flow in flows]
        compiled.prepare()

    @torch.no_grad()
    def __call__(self, signal: Tensor, cond: Conditioning) -> Tensor:
        """Flow after flow, over torch's number of threads."""
        for flow in self._flows:
            signal = flow(signal, cond)
        return signal


class _TiledFlow:
    """One IAF, its weights turned into the products' order."""

    def __init__(self, flow: IAF) -> None:
        stack, config = flow.stack, flow.stack.config
        self.flow, self.window = flow, 2 * config.kernel_size - 1
        blocks = [block for block in stack.blocks if isinstance(block, GatedBlock)]
        first = entry(stack)  # with an input that is 1: here in the constants, but for the first layer's gates
        known = np.pad(first[:, :-1], [(config.kernel_size - 1, 0), (0, 1), (0, 0)])  # of older inputs, and of the 1
        self.input = _single(known).flatten(0, 1)  # ((2 k - 1) (I + 1), R)
        constant, skips = bias(stack.input), np.zeros(config.skip_channels)
        half, scale = math.sqrt(0.5), 1 / math.sqrt(len(blocks))
        self.layers: list[_Layer] = []
        for block, dilation in zip(blocks, config.dilations, strict=True):
            taps, gates = matrices(block.dilated), bias(block.dilated)
            delays = [(config.kernel_size - 1 - tap) * dilation for tap in range(config.kernel_size)]
            if self.layers:
                gates = gates + constant @ taps.sum(0)  # not in place: it may be the parameter's own memory
            else:
                taps, delays = in_one(first, taps)[None], [0]
            residual, skip = np.split(matrices(block.output)[0], [config.residual_channels], 1)
            panelled = [np.concatenate([panels(tap) for tap in taps]), panels(half * residual), panels(scale * skip)]
            self.layers.append(
                _Layer(
                    np.array(delays, np.int64), *(array.astype(np.float32) for array in (*panelled, gates, constant))
                )
            )
            residual, skip = np.split(bias(block.output), [config.residual_channels])
            constant = half * (constant + residual)
            skips += scale * skip
        self.skips = _single(skips)
        self.head = [(_single(matrices(module)[0]), _single(bias(module))) for module in (stack.hidden, stack.output)]

    def __call__(self, signal: Tensor, cond: Conditioning) -> Tensor:
        assert self.flow.stack.condition is not None
        projected = torch.matmul(self.flow.stack.condition.weight, cond.frames).float()
        frames = projected.unflatten(1, (len(self.layers), -1)).transpose(2, 3).contiguous()  # (B, L, F + 2, G)
        inputs = shift_right(signal)[:, None]
        if self.flow.signals:
            assert cond.signals is not None
            inputs = torch.cat([inputs, cond.signals], 1)
        inputs = torch.cat([inputs.float(), torch.ones_like(inputs[:, :1], dtype=torch.float32)], 1)
        rows = F.pad(inputs, (self.window - 1, 0)).unfold(2, self.window, 1)  # (B, I + 1, T, 2 k - 1)
        rows = rows.permute(0, 2, 3, 1).flatten(2).contiguous()
        kernel = cond.kernel.detach().float().T.contiguous().numpy()  # (hop, 3)
        with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
            spans = self._spans(len(rows), rows.shape[1] // len(kernel), len(kernel))
            parts = list(pool.map(lambda span: self._part(rows, frames, kernel, *span), spans))
        results = [
            torch.cat([part for span, part in zip(spans, parts, strict=True) if span[0] == n]) for n in range(len(rows))
        ]
        loc, log_scale = self.flow.bounded(torch.stack(results).transpose(1, 2).to(signal.dtype))
        return signal * torch.exp(log_scale) + loc

    def _spans(self, signals: int, frames: int, hop: int) -> list[tuple[int, int, int]]:
        """(signal, first frame, last frame) of what runs side by side: signals, parts of them where threads are left.

        A part begins `lead` frames early, in which what its first sample depends on is computed again.
        """
        lead = -(-self.flow.receptive_field // hop)
        parts = max(1, min(torch.get_num_threads() // signals, frames // (_WORTH * lead)))
        bounds = [round(place * frames / parts) for place in range(parts + 1)]
        return [(n, *bound) for n in range(signals) for bound in itertools.pairwise(bounds)]

    def _part(self, rows: Tensor, frames: Tensor, kernel: Array, signal: int, first: int, last: int) -> Tensor:
        """Parameters (samples, 2) of the frames first, ..., last - 1 of a signal, before their bounds."""
        hop = len(kernel)
        early = max(0, first - -(-self.flow.receptive_field // hop))
        mine = rows[signal, early * hop : last * hop], frames[signal, :, early : last + 2].contiguous()
        return self._one(*mine, kernel)[(first - early) * hop :]

    def _one(self, rows: Tensor, frames: Tensor, kernel: Array) -> Tensor:
        """rows (T, (2 k - 1) (I + 1)), frames (L, F + 2, G) -> parameters (T, 2) before their bounds."""
        hop = len(kernel)
        count = max(1, round(_TILE / hop))  # frames of a tile
        work = _Work(self, min(count * hop, len(rows)))
        parts = []
        for first in range(0, frames.shape[1] - 2, count):
            last = min(first + count, frames.shape[1] - 2)
            parts.append(work.tile(rows[first * hop : last * hop], frames[:, first : last + 2], kernel))
        return torch.cat(parts)


@dataclasses.dataclass(frozen=True)
class _Layer:
    """One gated block, its matrices in panels: taps oldest first with their delays, bias (G,), constant (R,).

    The first has one tap, of (2 k - 1) (I + 1) inputs.
    """

    delays: Any
    taps: Array
    residual: Array
    skip: Array
    bias: Array
    constant: Array


class _Work:
    """Memory of one signal on its way through one flow: what every layer has seen, and a tile's intermediate values."""

    def __init__(self, flow: _TiledFlow, tile: int) -> None:
        self.flow = flow
        self.past = [_Past(layer, tile) for layer in flow.layers]
        self.skips = len(flow.skips)
        self.total = torch.zeros(tile, padded(self.skips))

    def tile(self, rows: Tensor, frames: Tensor, kernel: Array) -> Tensor:
        """The next rows (n, (2 k - 1) (I + 1)) with their frames (L, n / hop + 2, G) -> parameters (n, 2)."""
        count, channels = len(rows), self.flow.input.shape[1]
        total = self.total[:count]
        total[:, : self.skips] = self.flow.skips
        nothing = self.past[0].room(0)
        torch.mm(rows, self.flow.input, out=self.past[0].room(count)[:, :channels])
        for place, layer in enumerate(self.flow.layers):
            past = self.past[place]
            seen, now = (past.strip, past.place) if place else (rows, 0)
            # What the last layer would hand on is not used.
            after = self.past[place + 1].room(count) if place + 1 < len(self.past) else nothing
            compiled.layer(
                layer.taps,
                layer.bias,
                frames[place].numpy(),
                kernel,
                layer.residual,
                layer.skip,
                seen.numpy(),
                now,
                layer.delays,
                channels if place else rows.shape[1],
                past.strip.numpy(),
                past.place,
                after.numpy(),
                total.numpy(),
                frames.shape[2],
            )
            past.place += count
        total = total[:, : self.skips]
        for weight, shift in self.flow.head:
            total = torch.addmm(shift, F.leaky_relu(total, 0.2), weight)
        return total


class _Past:
    """A layer's input: `reach` rows of the past, then the present ones, in a strip that is wound back at its end."""

    def __init__(self, layer: _Layer, tile: int) -> None:
        self.reach = int(layer.delays[0])
        tiles = -(-max(self.reach, tile) // tile)
        channels = len(layer.constant)
        self.strip = torch.zeros(self.reach + tiles * tile, padded(channels))
        self.strip[: self.reach, :channels] = -torch.from_numpy(layer.constant)
        self.place = self.reach  # of the next sample

    def room(self, count: int) -> Tensor:
        """Where the next `count` rows are to be written."""
        if self.place + count > len(self.strip):
            self.strip[: self.reach] = self.strip[self.place - self.reach : self.place]
            self.place = self.reach
        return self.strip[self.place : self.place + count]


def _single(numbers: Floats) -> Tensor:
    """float64 as a tensor of float32."""
    return torch.from_numpy(numbers).float().contiguous()
