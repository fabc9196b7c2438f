"""The stack of dilated gated convolutions: the one network behind teacher and flows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from wavenet.config import StackConfig, require
from wavenet.gates import Layers, gated_layers
from wavenet.layers import CausalConv1d, GatedBlock
from wavenet.upsample import Conditioning


class Stack(nn.Module):
    """x (B, I, T), Conditioning or None -> (B, O, T), causal: the output at t sees x_{<=t}.

    The shift that makes a conditioner strictly causal (x_{<t}) belongs to whoever calls the stack: the teacher
    and the flows. `receptive_field`: the output at t sees exactly x_{t - receptive_field + 1}, ..., x_t. The sum of the
    L skips is scaled by 1 / sqrt(L).

    centred: every convolution looks as far ahead as back, so the output at t sees x_{t - r}, ..., x_{t + r} with
    2 r + 1 = receptive_field. For what conditions on a whole signal, such as coupling layers; kernel_size is then odd.
    """

    def __init__(
        self,
        config: StackConfig,
        in_channels: int,
        out_channels: int,
        cond_channels: int = 0,
        centred: bool = False,
    ) -> None:
        super().__init__()
        odd = config.kernel_size % 2 == 1
        require(odd or not centred, "stack.kernel_size", config.kernel_size, "an odd number where nothing is causal")
        self.config = config
        self.ahead = config.kernel_size // 2 if centred else 0
        dilations = config.dilations
        self.input = CausalConv1d(in_channels, config.residual_channels, config.kernel_size, ahead=self.ahead)
        self.blocks = nn.ModuleList(
            GatedBlock(
                config.residual_channels,
                config.gate_channels,
                config.skip_channels,
                config.kernel_size,
                dilation,
                self.ahead,
            )
            for dilation in dilations
        )
        self.condition: nn.Linear | None = None
        if cond_channels:
            # No bias: the dilated convolution has one, and without it projection and interpolation commute.
            self.condition = nn.Linear(cond_channels, config.gate_channels * len(dilations), bias=False)
        self.hidden = CausalConv1d(config.skip_channels, config.skip_channels, 1)
        self.output = CausalConv1d(config.skip_channels, out_channels, 1)

    @property
    def receptive_field(self) -> int:
        """Samples seen by one output, the present one included."""
        return 1 + sum(reach for reach in self._reaches())

    @property
    def macs_per_sample(self) -> int:
        """Multiply-accumulates for one sample of one signal, the frame-rate part left out (it is 1/hop of its size)."""
        convolutions = [module for module in self.modules() if isinstance(module, CausalConv1d)]
        interpolation = 3 * self.config.gate_channels * len(self.blocks) if self.condition is not None else 0
        return sum(module.weight.numel() for module in convolutions) + interpolation

    def forward(self, signal: Tensor, cond: Conditioning | None = None, first: int = 0) -> Tensor:
        """(B, I, T), frames of the same T -> (B, O, T - first): the outputs at samples first, ..., T - 1 alone.

        Where a gradient will be asked for, the blocks run as one function that has its own (wavenet/gates.py), but for
        torch.func's transforms and forward mode, which want the plain formula.
        """
        hidden = self.input(signal)
        if self._wants_gradient(hidden, cond):
            return self._read(self._differentiable(hidden, cond, first), self.hidden, self.output)
        # One tensor a layer, made when it is needed: slicing one big tensor costs more than the arithmetic.
        parts = (None for _ in self.blocks) if cond is None else (part.at_samples() for part in self.conditions(cond))
        return self._run(hidden, self.blocks, parts, self.hidden, self.output)[:, :, first:]

    def conditions(self, cond: Conditioning) -> list[Conditioning]:
        """The conditioning projected for each layer, still at frame rate."""
        assert self.condition is not None, "this stack was built without conditioning"
        return cond.project(self.condition.weight).split([self.config.gate_channels] * len(self.blocks))

    def stepper(self, batch: int, cond: Conditioning | None = None) -> Callable[[Tensor], Tensor]:
        """A callable (B, I) -> (B, O) for consecutive samples; the conditioning is interpolated one frame at a time."""
        first, hidden, output = (module.stepper(batch) for module in (self.input, self.hidden, self.output))
        blocks = [block.stepper(batch) for block in self.blocks if isinstance(block, GatedBlock)]
        per_sample = self._samples(cond)

        def step(sample: Tensor) -> Tensor:
            return self._run(first(sample), blocks, next(per_sample), hidden, output)

        return step

    def _samples(self, cond: Conditioning | None) -> Iterator[Sequence[Tensor | None]]:
        if cond is None:
            while True:
                yield [None] * len(self.blocks)
        assert self.condition is not None, "this stack was built without conditioning"
        projected = cond.project(self.condition.weight)
        for frame in range(projected.frames.shape[2] - 2):
            samples = projected.window(frame, frame + 1).at_samples().permute(2, 0, 1).contiguous()
            for sample in samples:
                yield sample.chunk(len(self.blocks), 1)

    def _run(self, hidden, blocks, conds, head, output) -> Tensor:  # type: ignore[no-untyped-def]
        skips = []
        for block, cond in zip(blocks, conds, strict=True):
            hidden, skip = block(hidden, cond)
            skips.append(skip)
        return self._read(sum(skips[1:], start=skips[0]) * (1 / math.sqrt(len(self.blocks))), head, output)

    def _read(self, total: Tensor, head: Callable[[Tensor], Tensor], output: Callable[[Tensor], Tensor]) -> Tensor:
        # Leaky where the paper has ReLU: the few skip channels of a small network die otherwise.
        return output(F.leaky_relu(head(F.leaky_relu(total, 0.2)), 0.2))

    def _wants_gradient(self, hidden: Tensor, cond: Conditioning | None) -> bool:
        asked = [hidden] if cond is None else [hidden, cond.frames, cond.kernel]
        wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*asked, *self.parameters()))
        return wanted and not _transformed()

    def _differentiable(self, hidden: Tensor, cond: Conditioning | None, first: int) -> Tensor:
        """The scaled sum of the skips, (B, S, T - first), of the blocks' input (B, R, T)."""
        layers, device = self._layers(cond, hidden), hidden.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            hidden, layers = hidden.to(dtype), Layers(*(part.to(dtype) for part in layers))
        with torch.autocast(device, enabled=False):
            return gated_layers(hidden, layers, self.config.dilations, first, self.ahead)

    def _layers(self, cond: Conditioning | None, like: Tensor) -> Layers:
        """The blocks' weights as `gated_layers` takes them: the scalings of the sums are in the weights."""
        blocks, config = [block for block in self.blocks if isinstance(block, GatedBlock)], self.config
        scale = torch.full((sum(blocks[0].sizes),), math.sqrt(0.5), dtype=self.input.weight.dtype, device=like.device)
        scale[config.residual_channels :] = 1 / math.sqrt(len(blocks))
        taps = torch.stack([block.dilated.weight for block in blocks]).permute(0, 3, 1, 2)
        shift = torch.stack([block.dilated.bias for block in blocks if block.dilated.bias is not None])
        mix = torch.stack([block.output.weight[:, :, 0] for block in blocks]) * scale[:, None]
        bias = torch.stack([block.output.bias for block in blocks if block.output.bias is not None]) * scale
        if cond is None:
            rows = shift[:, None, :, None, None].expand(-1, len(like), -1, 1, 1)
            return Layers(rows, rows.new_ones(1, like.shape[2]), taps.contiguous(), mix, bias)
        assert self.condition is not None, "this stack was built without conditioning"
        projected = cond.project(self.condition.weight)
        frames = projected.frames.unflatten(1, (len(blocks), -1)).transpose(0, 1).unfold(3, 3, 1)
        # The bias as a fourth frame beside previous, own and next, of weight 1 everywhere.
        rows = torch.cat([frames, shift[:, None, :, None, None].expand(*frames.shape[:-1], 1).to(frames.dtype)], -1)
        kernel = torch.cat([cond.kernel, torch.ones_like(cond.kernel[:1])])
        return Layers(rows, kernel, taps.contiguous(), mix, bias)

    def _reaches(self) -> Iterator[int]:
        yield self.input.reach
        for dilation in self.config.dilations:
            yield (self.config.kernel_size - 1) * dilation


def _transformed() -> bool:
    """Whether torch.func (grad, vmap, jvp, ...) or forward-mode differentiation is at work."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
