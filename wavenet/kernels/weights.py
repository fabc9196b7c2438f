"""A teacher's weights and drive as the kernels read them: padded with zeros to powers of two, each layer's together."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from wavenet.heads import GaussianHead, MixtureHead, MuLawHead
from wavenet.layers import CausalConv1d, GatedBlock
from wavenet.stack import Stack
from wavenet.upsample import Conditioning

LEAST = 16  # of every padded size: what a GPU's threads share out well


@dataclasses.dataclass(frozen=True)
class Packed:
    """Weights (gate channels, others) with half = G / 2 and every size padded; the two scalings of a block inside.

    input (k I, R), gates (L, k, 2, half, R), residual (L, half, R), skip (L, half, S), hidden (S, S) by rows of
    outputs, output (n, S, count): logits, and for scales locations and raw log scales too. Biases beside them; skip's
    is the sum over layers, the logits' -inf beyond `count`. dilations, ring_at (L,): where a layer's ring begins among
    `slots`. numbers (8,) float64: gain, 1 / gain, coefficient, e^floor, temperature, step of the grid, sqrt(1/2), 0.2.
    """

    input: Tensor
    input_bias: Tensor
    gates: Tensor
    gates_bias: Tensor
    residual: Tensor
    residual_bias: Tensor
    skip: Tensor
    skip_bias: Tensor
    hidden: Tensor
    hidden_bias: Tensor
    output: Tensor
    output_bias: Tensor
    levels: Tensor
    dilations: Tensor
    ring_at: Tensor
    numbers: Tensor
    sizes: dict[str, int]
    slots: int

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, in the order of the kernels' arguments."""
        values = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return [value for value in values if isinstance(value, Tensor)]


def padded(size: int) -> int:
    """The least power of two that holds `size`, at least LEAST."""
    return max(LEAST, 1 << (size - 1).bit_length())


def pack(
    stack: Stack, head: MixtureHead | GaussianHead | MuLawHead, gain: float, coefficient: float, temperature: float
) -> Packed:
    """The weights of a teacher, on its device and in its precision."""
    like, config, kinds = stack.input.weight, stack.config, 1 if isinstance(head, MuLawHead) else 3
    output, output_bias = _head(stack, head, kinds, temperature)
    count = output.shape[2]
    lengths = [(config.kernel_size - 1) * dilation + 1 for dilation in config.dilations]
    tensors = stack_weights(stack)
    tensors |= {"output": _pad(output, tensors["hidden"].shape[0], padded(count)), "output_bias": output_bias}
    levels = head.mulaw.decode(torch.arange(count), torch.float64) if isinstance(head, MuLawHead) else torch.zeros(1)
    tensors["levels"] = _pad(levels, padded(count))
    sizes = stack_sizes(stack) | {
        "KINDS": kinds,
        "COUNT": count,
        "COUNT_PADDED": padded(count),
        "GRID": int(isinstance(head, MixtureHead) and head.grid is not None),
        "GREEDY": int(isinstance(head, MuLawHead) and temperature == 0),
    }
    return Packed(
        **{name: tensor.to(like).contiguous() for name, tensor in tensors.items()},
        dilations=torch.tensor(config.dilations, dtype=torch.int32, device=like.device),
        ring_at=torch.tensor([sum(lengths[:i]) for i in range(len(lengths))], dtype=torch.int32, device=like.device),
        numbers=numbers(head, gain, coefficient, temperature).to(like.device),
        sizes=sizes,
        slots=sum(lengths),
    )


def head_rows(sizes: dict[str, int], most: int) -> int:
    """Rows of the head's matrices of which a program holds at most so many numbers at a time."""
    return min(sizes["SKIP"], max(1, most // max(sizes["COUNT_PADDED"], sizes["SKIP"])))


def stack_weights(stack: Stack) -> dict[str, Tensor]:
    """`Packed`'s tensors from input to hidden_bias by name, in float64 on the CPU: what any user of a stack needs."""
    blocks, sizes = [block for block in stack.blocks if isinstance(block, GatedBlock)], stack_sizes(stack)
    root, share = math.sqrt(0.5), 1 / math.sqrt(len(blocks))
    half, residual, skip = sizes["HALF"], sizes["WIDTH"], sizes["SKIP"]
    mixes = [_double(block.output.weight)[:, :, 0].T.split(block.sizes, 1) for block in blocks]
    mix_biases = [_bias(block.output).split(block.sizes) for block in blocks]
    gates = torch.stack([_double(block.dilated.weight).permute(2, 0, 1) for block in blocks])  # (L, k, G, R)
    return {
        "input": _pad(_double(stack.input.weight).permute(2, 1, 0).flatten(0, 1), sizes["WINDOW"], residual),
        "input_bias": _pad(_bias(stack.input), residual),
        "gates": _pad(gates.unflatten(2, (2, -1)), half, residual),
        "gates_bias": _pad(torch.stack([_bias(block.dilated) for block in blocks]).unflatten(1, (2, -1)), half),
        "residual": _pad(root * torch.stack([mix for mix, _ in mixes]), half, residual),
        "residual_bias": _pad(root * torch.stack([bias for bias, _ in mix_biases]), residual),
        "skip": _pad(share * torch.stack([mix for _, mix in mixes]), half, skip),
        "skip_bias": _pad(share * torch.stack([bias for _, bias in mix_biases]).sum(0), skip),
        "hidden": _pad(_double(stack.hidden.weight)[:, :, 0], skip, skip),
        "hidden_bias": _pad(_bias(stack.hidden), skip),
    }


def stack_sizes(stack: Stack) -> dict[str, int]:
    """A stack's sizes as the kernels' constants name them, padded where its tensors are."""
    config, inputs = stack.config, stack.input.in_channels
    return {
        "INPUTS": inputs,
        "TAPS": config.kernel_size,
        "WINDOW": padded(config.kernel_size * inputs),
        "LAYERS": len(stack.blocks),
        "HALF": padded(config.gate_channels // 2),
        "WIDTH": padded(config.residual_channels),
        "SKIP": padded(config.skip_channels),
    }


def numbers(
    head: MixtureHead | GaussianHead | MuLawHead, gain: float, coefficient: float, temperature: float
) -> Tensor:
    """(8,) float64, as `Packed` has them."""
    floor = 0.0 if isinstance(head, MuLawHead) else head.floor
    step = head.grid.step if isinstance(head, MixtureHead) and head.grid is not None else 1.0
    values = [gain, 1 / gain, coefficient, math.exp(floor), temperature, step, math.sqrt(0.5), 0.2]
    return torch.tensor(values, dtype=torch.float64)


def choices(head: MixtureHead | GaussianHead | MuLawHead, deviates: Tensor) -> Tensor:
    """deviates (B, T, n) as the draw wants them: a Gaussian is a mixture of one, whose choice is made."""
    if isinstance(head, GaussianHead):
        deviates = torch.cat([torch.full_like(deviates, 0.5), deviates], -1)
    return deviates.contiguous()


def frames(stack: Stack, cond: Conditioning) -> tuple[Tensor, Tensor]:
    """Conditioning projected for every layer, (B, F + 2, L, 2, half padded), and the kernel (hop, 3)."""
    assert stack.condition is not None, "this stack was built without conditioning"
    projected = cond.project(stack.condition.weight)
    by_layer = projected.frames.detach().transpose(1, 2).unflatten(2, (len(stack.blocks), 2, -1))
    return _pad(by_layer, padded(by_layer.shape[-1])).contiguous(), projected.kernel.detach().T.contiguous()


def _head(
    stack: Stack, head: MixtureHead | GaussianHead | MuLawHead, kinds: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Weights (kinds, S, count), biases (kinds, count padded)."""
    weight, bias = _double(stack.output.weight)[:, :, 0].T, _bias(stack.output)
    if isinstance(head, GaussianHead):  # one component, always chosen
        weight, bias = torch.cat([torch.zeros_like(weight[:, :1]), weight], 1), torch.cat([bias.new_zeros(1), bias])
    if isinstance(head, MuLawHead) and temperature > 0:
        weight, bias = weight / temperature, bias / temperature
    parts, biases = torch.stack(weight.chunk(kinds, 1)), torch.stack(bias.chunk(kinds))
    count = parts.shape[2]
    full = _pad(biases, padded(count))
    full[0, count:] = -math.inf
    return parts, full


def _pad(tensor: Tensor, *sizes: int) -> Tensor:
    """Zeros behind the last dimensions, up to `sizes`."""
    last = tensor.shape[-len(sizes) :]
    fill = [n for size, had in zip(sizes[::-1], last[::-1], strict=True) for n in (0, size - had)]
    return torch.nn.functional.pad(tensor, fill)


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _bias(convolution: CausalConv1d) -> Tensor:
    assert convolution.bias is not None
    return _double(convolution.bias)
