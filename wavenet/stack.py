"""The stack of dilated gated convolutions: the one network behind teacher and flows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from wavenet.config import StackConfig
from wavenet.layers import CausalConv1d, GatedBlock
from wavenet.upsample import Conditioning


class Stack(nn.Module):
    """x (B, I, T), Conditioning or None -> (B, O, T), causal: the output at t sees x_{<=t}.

    The shift that makes a conditioner strictly causal (x_{<t}) belongs to whoever calls the stack: the teacher
    and the flows. `receptive_field`: the output at t sees exactly x_{t - receptive_field + 1}, ..., x_t. The sum of the
    L skips is scaled by 1 / sqrt(L).
    """

    def __init__(self, config: StackConfig, in_channels: int, out_channels: int, cond_channels: int = 0) -> None:
        super().__init__()
        self.config = config
        dilations = config.dilations
        self.input = CausalConv1d(in_channels, config.residual_channels, config.kernel_size)
        self.blocks = nn.ModuleList(
            GatedBlock(
                config.residual_channels, config.gate_channels, config.skip_channels, config.kernel_size, dilation
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

    def forward(self, signal: Tensor, cond: Conditioning | None = None) -> Tensor:
        """(B, I, T), frames of the same T -> (B, O, T)."""
        # One tensor a layer, made when it is needed: slicing one big tensor costs more than the arithmetic.
        parts = (None for _ in self.blocks) if cond is None else (part.at_samples() for part in self.conditions(cond))
        return self._run(self.input(signal), self.blocks, parts, self.hidden, self.output)

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
        # Leaky where the paper has ReLU: the few skip channels of a small network die otherwise.
        total = F.leaky_relu(sum(skips[1:], start=skips[0]) * (1 / math.sqrt(len(self.blocks))), 0.2)
        result: Tensor = output(F.leaky_relu(head(total), 0.2))
        return result

    def _reaches(self) -> Iterator[int]:
        yield self.input.reach
        for dilation in self.config.dilations:
            yield (self.config.kernel_size - 1) * dilation
