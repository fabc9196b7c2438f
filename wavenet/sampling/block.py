"""A block of consecutive samples by tensor operations: the same ones on the same memory, block after block.

No operation looks at a number or at the time, so that a CUDA graph of one block replays as the next one; and nothing
but plain tensor operations is in it, so that a CPU computes the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wavenet.sampling.draws import make_draw
from wavenet.sampling.drivable import Drivable
from wavenet.sampling.stepper import Stepper


class BlockStepper(Stepper):
    """A few operations a layer: gate, one product, and the delayed taps for as many samples at once as they can."""

    def __init__(self, model: Drivable, like: Tensor, temperature: float = 1.0, block: int = 32) -> None:
        """As for `Stepper`."""
        self.draw = make_draw(model.head, model.gain, model.config.pre_emphasis, temperature, like)
        super().__init__(model, like, block)
        self.ends = like.new_zeros(block, len(like), len(self.composition.ends))
        reaches = [(self.config.kernel_size - 1) * dilation for dilation in self.config.dilations]
        self.histories = [like.new_zeros(reach * len(like), self.config.residual_channels) for reach in reaches]

    def prepare(self, deviates: Tensor) -> Tensor:
        """As wavenet.sampling.draws has it."""
        return self.draw.prepare(deviates)

    @property
    def past(self) -> list[Tensor]:
        """Beside the samples, every layer's inputs as far back as its taps reach."""
        return [*super().past, *self.histories]

    def run(self) -> None:
        """Make one block."""
        skips, gates = self.config.skip_channels, self.config.gate_channels
        window = len(self.composition.wave)
        self.ends.copy_(self.composition.ends)
        for i, (row, ends) in enumerate(zip(self.rows.unbind(), self.ends.unbind(), strict=True)):
            row[:, :-skips].addmm_(self.wave[:, i : i + window], self.composition.wave)
            self._add_past(i)
            for layer, push in enumerate(self.composition.push):
                at = layer * self.width
                row[:, at + self.width :].addmm_(_gate(row[:, at : at + gates]), push)
            hidden, outputs = ends[:, :skips], ends[:, skips:]
            hidden.addmm_(F.leaky_relu(row[:, -skips:], 0.2), self.composition.hidden)
            outputs.addmm_(F.leaky_relu(hidden, 0.2), self.composition.output)
            self.draw(outputs, self.noise[i], self.wave[:, i + window - 1], self.wave[:, i + window])
        self._keep_past()
        self.advance()

    def _add_past(self, i: int) -> None:
        """Add taps of delay d at every d-th sample, for the d samples whose inputs have then become known."""
        gates, batch = self.config.gate_channels, self.batch
        flat = self.rows.flatten(0, 1)
        for layer, (taps, dilation) in enumerate(zip(self.composition.past, self.config.dilations, strict=True)):
            for order, tap in enumerate(taps):
                delay = (len(taps) - order) * dilation
                group = min(delay, self.block)
                if i % group:
                    continue
                count = min(group, self.block - i)
                if i < delay:  # all of them before this block
                    place = len(self.histories[layer]) // batch + i - delay
                    source = self.histories[layer]
                else:
                    place, source = i - delay, self._stream(layer)
                at = layer * self.width
                target = flat[i * batch : (i + count) * batch, at : at + gates]
                target.addmm_(source[place * batch : (place + count) * batch], tap)

    def _keep_past(self) -> None:
        for layer, history in enumerate(self.histories):
            made = self._stream(layer)
            if len(history) > len(made):
                history.copy_(torch.cat([history[len(made) :], made]))
            elif len(history):
                history.copy_(made[-len(history) :])

    def _stream(self, layer: int) -> Tensor:
        """h_layer of this block, (block B, R)."""
        at = layer * self.width + self.config.gate_channels
        return self.rows.flatten(0, 1)[:, at : at + self.config.residual_channels]


def _gate(row: Tensor) -> Tensor:
    """tanh x sigmoid: (B, 2 H) -> (B, H). The row's first half is spent."""
    row[:, : row.shape[1] // 2].tanh_()
    return F.glu(row, 1)
