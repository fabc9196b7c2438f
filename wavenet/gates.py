r"""The gated layers of a stack as one function with a gradient of its own: what a training step spends its time in.

Autograd over the blocks one by one pads, slices, concatenates and keeps a dozen tensors a layer. Here each layer is
matrix products that add into one buffer:

    g = kernel * rows + sum_j taps_j h_{t - j d},   z = tanh(g_1) sigmoid(g_2)
    h <- sqrt(1/2) h + mix_r z + bias_r,            skip <- skip + mix_s z + bias_s

(van den Oord et al. 2016, arXiv 1609.03499, with the factors of `GatedBlock` moved into taps, rows, mix and bias). What
is kept for the gradient: h, tanh and sigmoid, and z of each layer. The same map as the blocks', forward and backward.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_ROOT_HALF = math.sqrt(0.5)


class Layers(NamedTuple):
    """What L layers are made of, of R residual, S skip, G gate channels and K taps.

    rows (L, B, G, F, J), kernel (J, hop): what is added to the gates at sample t = f hop + i, sum_j rows_fj kernel_ji.
    taps (L, K, G, R), the oldest first; mix (L, R + S, G / 2), bias (L, R + S).
    """

    rows: Tensor
    kernel: Tensor
    taps: Tensor
    mix: Tensor
    bias: Tensor


@dataclasses.dataclass(frozen=True)
class _Span:
    """Where a layer of one dilation works: samples [first, T), from an input that begins at sample `source`.

    ahead: how many of its taps look ahead.
    """

    first: int
    source: int
    dilation: int
    ahead: int

    def taps(self, count: int, length: int) -> list[tuple[int, int, int, int]]:
        """(tap, first output, first input, samples) of each tap that reaches a sample, outputs counted from `first`.

        The present one comes last: it reaches all.
        """
        found = []
        present = count - 1 - self.ahead
        for tap in sorted(range(count), key=present.__eq__):
            place = self.first - (present - tap) * self.dilation - self.source
            size = min(length - self.first, length - self.source - place) - max(0, -place)
            if size > 0:
                found.append((tap, max(0, -place), max(0, place), size))
        return found


def gated_layers(hidden: Tensor, layers: Layers, dilations: list[int], first: int = 0, ahead: int = 0) -> Tensor:
    """hidden (B, R, T) -> sum of the skips (B, S, T - first), of the samples first, ..., T - 1 alone.

    ahead: how many taps of each layer look ahead (0: causal).

    Layers compute what those samples depend on and no more, in whole frames of hop samples. Differentiable once,
    in reverse; torch.func and forward mode take the blocks one by one (Stack.forward).
    """
    skips: Tensor = _GatedLayers.apply(hidden, *layers, tuple(dilations), first, ahead)
    return skips


def _spans(dilations: tuple[int, ...], taps: int, hop: int, first: int, ahead: int) -> list[_Span]:
    spans = []
    for dilation in reversed(dilations):
        begin = first // hop * hop
        first = max(0, begin - (taps - 1 - ahead) * dilation)
        spans.append(_Span(begin, first // hop * hop, dilation, ahead))
    return spans[::-1]


class _GatedLayers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        rows: Tensor,
        kernel: Tensor,
        taps: Tensor,
        mix: Tensor,
        bias: Tensor,
        dilations: tuple[int, ...],
        first: int,
        ahead: int,
    ) -> Tensor:
        batch, residual, length = hidden.shape
        count, gate = taps.shape[1], taps.shape[2]
        half, hop = gate // 2, kernel.shape[1]
        spans = _spans(dilations, count, hop, first, ahead)
        hidden = hidden[:, :, spans[0].source :]
        total = bias[:, residual:].sum(0)[:, None].expand(batch, -1, length - first).contiguous()
        kept = []
        for layer, span in enumerate(spans):
            frames = rows[layer, :, :, span.first // hop :]
            gates = torch.mm(frames.reshape(-1, frames.shape[-1]), kernel).view(batch, gate, -1)
            for tap, to, source, size in span.taps(count, length):
                read = hidden[:, :, source : source + size]
                gates[:, :, to : to + size].baddbmm_(_each(taps[layer, tap], batch), read)
            gates[:, :half].tanh_()
            gates[:, half:].sigmoid_()
            content = gates[:, :half] * gates[:, half:]
            kept += [hidden, gates, content]
            total.baddbmm_(_each(mix[layer, residual:], batch), content[:, :, first - span.first :])
            if layer + 1 < len(spans):  # the last layer's residual goes nowhere
                passed = hidden[:, :, span.first - span.source :]
                hidden = torch.add(bias[layer, :residual, None], passed, alpha=_ROOT_HALF)
                hidden.baddbmm_(_each(mix[layer, :residual], batch), content)
        ctx.save_for_backward(rows, kernel, taps, mix, *kept)
        ctx.dilations, ctx.first, ctx.ahead, ctx.length = dilations, first, ahead, length
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, kernel, taps, mix, *kept = ctx.saved_tensors
        need_hidden, need_rows, need_kernel, need_taps, need_mix, need_bias = ctx.needs_input_grad[:6]
        batch, gate, length = len(grad), taps.shape[2], ctx.length
        count, residual, half, hop = taps.shape[1], taps.shape[3], gate // 2, kernel.shape[1]
        spans = _spans(ctx.dilations, count, hop, ctx.first, ctx.ahead)
        d_rows = torch.zeros_like(rows) if need_rows else None
        d_kernel = torch.zeros_like(kernel) if need_kernel else None
        d_taps = torch.zeros_like(taps) if need_taps else None
        d_mix = torch.zeros_like(mix) if need_mix else None
        d_bias = mix.new_zeros(mix.shape[:2]) if need_bias else None
        # Gradients of h (each layer's in turn) above those of the skips, which are the same for every layer.
        both = grad.new_zeros(batch, mix.shape[1], length)
        both[:, residual:, ctx.first :] = grad
        if d_bias is not None:
            d_bias[:, residual:] = grad.sum((0, 2))
        for layer in reversed(range(len(spans))):
            span = spans[layer]
            hidden, gates, content = kept[3 * layer : 3 * layer + 3]
            reached = slice(residual, None) if layer + 1 == len(spans) else slice(None)
            mixed = both[:, reached, span.first :]
            if d_mix is not None:
                d_mix[layer, reached] = torch.bmm(mixed, content.mT).sum(0)
            if d_bias is not None and layer + 1 < len(spans):
                d_bias[layer, :residual] = mixed[:, :residual].sum((0, 2))
            d_content = torch.bmm(_each(mix[layer, reached].mT, batch), mixed)
            d_gates = _gate_gradient(gates, content, d_content, half)
            flat = d_gates.view(-1, hop)
            if d_rows is not None:
                d_rows[layer, :, :, span.first // hop :] = torch.mm(flat, kernel.mT).view(batch, gate, -1, len(kernel))
            if d_kernel is not None:
                frames = rows[layer, :, :, span.first // hop :]
                d_kernel.addmm_(frames.reshape(-1, frames.shape[-1]).mT, flat)
            d_hidden = both[:, :residual]
            for tap, to, source, size in reversed(span.taps(count, length)):
                part = d_gates[:, :, to : to + size]
                if d_taps is not None:
                    d_taps[layer, tap] = torch.bmm(part, hidden[:, :, source : source + size].mT).sum(0)
                if layer or need_hidden:
                    place = span.source + source
                    # The present tap comes first and covers the span: it scales what the residual hands down.
                    beta = _ROOT_HALF if tap == count - 1 - ctx.ahead else 1.0
                    into = d_hidden[:, :, place : place + size]
                    into.baddbmm_(_each(taps[layer, tap].mT, batch), part, beta=beta)
        d_first = both[:, :residual] if need_hidden else None
        return d_first, d_rows, d_kernel, d_taps, d_mix, d_bias, None, None, None


def _gate_gradient(gates: Tensor, content: Tensor, d_content: Tensor, half: int) -> Tensor:
    """Gradient of the gates before tanh and sigmoid, from those of z, their product."""
    result = torch.empty_like(gates)
    first, second = result[:, :half], result[:, half:]
    torch.mul(d_content, gates[:, half:], out=first)
    torch.ops.aten.tanh_backward.grad_input(first, gates[:, :half], grad_input=first)
    torch.mul(d_content, content, out=second)
    torch.addcmul(second, second, gates[:, half:], value=-1, out=second)
    return result


def _each(weight: Tensor, batch: int) -> Tensor:
    return weight.expand(batch, *weight.shape)
