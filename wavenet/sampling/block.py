"""A block of consecutive samples on static tensors: the same operations on the same memory, block after block.

No operation looks at a number or at the time, so that a CUDA graph of one block replays as the next one; and nothing
but plain tensor operations is in it, so that a CPU computes the same (gate and draw are Triton's on request).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wavenet.sampling.composition import compose
from wavenet.sampling.deviates import deviates
from wavenet.sampling.draws import Draw, make_draw
from wavenet.sampling.drivable import Drivable
from wavenet.upsample import Conditioning

if TYPE_CHECKING:
    from wavenet.kernels.operations import KernelDraw


class Drive(NamedTuple):
    """What drives a signal: noise (B, T, m) of the draw, conditioning of all layers' gates, and further inputs (B, S,
    T and more) with zeros on both sides, where the stack has any."""

    noise: Tensor
    cond: Conditioning
    signals: Tensor | None


class BlockStepper:
    """`load(drive, first)` brings in what drives samples first, first + 1, ...; `run()` makes them and keeps the past.

    After `run`, `samples` (B, block) holds them. Blocks follow each other from 0 on; `reset` goes back to the silence
    before the first, of the same signal or another one of as many: nothing of a signal but its past is held here. The
    last block may reach beyond the signal's T samples: what it makes there is nobody's.
    `rows` (block, B, W) holds every layer's gates and stream side by side (wavenet.sampling.composition).
    """

    def __init__(
        self, model: Drivable, like: Tensor, temperature: float = 1.0, block: int = 32, kernels: bool = False
    ) -> None:
        """like (B, T, n): uniforms, of which the sizes B and n, precision and device count. block: samples made by one
        `run`, more than a kernel has.

        kernels: gate and draw by Triton, one operation each, instead of 2 and about 14.
        """
        config, batch = model.stack.config, len(like)
        assert block > config.kernel_size
        self.block, self.batch, self.config = block, batch, config
        self.composition = compose(model.stack, model.gain, model.config.pre_emphasis)
        law = (model.head, model.gain, model.config.pre_emphasis, temperature, like)
        self.draw: Draw | KernelDraw
        if kernels:
            # Imported where it is used: Triton is not installed everywhere.
            from wavenet.kernels.operations import KernelDraw, gate

            self.draw, self.gate = KernelDraw(*law), gate
        else:
            self.draw, self.gate = make_draw(*law), _gate
        self.noise = like.new_zeros(block, batch, self.draw.prepare(like[:, :0]).shape[2])
        self.rows = like.new_zeros(block, batch, len(self.composition.start))
        self.ends = like.new_zeros(block, batch, len(self.composition.ends))
        self.wave = like.new_zeros(batch, config.kernel_size + 1 + block)
        reaches = [(config.kernel_size - 1) * dilation for dilation in config.dilations]
        self.histories = [like.new_zeros(reach * batch, config.residual_channels) for reach in reaches]

    def drive(self, model: Drivable, cond: Conditioning, uniforms: Tensor) -> Drive:
        """What `load` reads of a signal of that model, cond and uniforms (B, T, n) of all its samples."""
        assert model.stack.condition is not None
        signals, taps = cond.signals, self.config.kernel_size
        if signals is not None:
            signals = F.pad(signals, (taps - 1, -(-cond.length // self.block) * self.block - cond.length))
        noise = self.draw.prepare(deviates(model.head, uniforms))
        return Drive(noise, cond.project(model.stack.condition.weight), signals)

    @property
    def samples(self) -> Tensor:
        """The samples (B, block) of the last run."""
        return self.wave[:, -self.block :]

    def reset(self) -> None:
        """Silence before the first sample."""
        for state in (self.rows, self.wave, *self.histories):
            state.zero_()

    def load(self, drive: Drive, first: int) -> None:
        """Biases, conditioning and noise of samples first, ..., first + block - 1."""
        self.rows.copy_(self.composition.start)
        self.ends.copy_(self.composition.ends)
        last = min(first + self.block, drive.cond.length)
        count, hop = last - first, drive.cond.kernel.shape[1]
        frame = first // hop
        cond = drive.cond.window(frame, (last - 1) // hop + 1).at_samples()[..., first - frame * hop :][..., :count]
        skips, gates = self.config.skip_channels, self.config.gate_channels
        layers = self.rows[:, :, :-skips].unflatten(2, (len(self.histories), -1))[..., :gates]
        layers[:count] += cond.permute(2, 0, 1).unflatten(2, (len(self.histories), gates))
        if drive.signals is not None:
            taps = self.config.kernel_size
            windows = drive.signals[:, :, first : first + self.block + taps - 1].unfold(2, taps, 1)
            self.rows[:, :, :-skips] += windows.permute(2, 0, 3, 1).flatten(2) @ self.composition.signals
        self.noise[:count].copy_(drive.noise[:, first:last].transpose(0, 1))

    def run(self) -> None:
        """Make one block."""
        width = self.config.gate_channels + self.config.residual_channels
        skips, gates = self.config.skip_channels, self.config.gate_channels
        window = len(self.composition.wave)
        for i, (row, ends) in enumerate(zip(self.rows.unbind(), self.ends.unbind(), strict=True)):
            row[:, :-skips].addmm_(self.wave[:, i : i + window], self.composition.wave)
            self._add_past(i)
            for layer, push in enumerate(self.composition.push):
                at = layer * width
                row[:, at + width :].addmm_(self.gate(row[:, at : at + gates]), push)
            hidden, outputs = ends[:, :skips], ends[:, skips:]
            hidden.addmm_(F.leaky_relu(row[:, -skips:], 0.2), self.composition.hidden)
            outputs.addmm_(F.leaky_relu(hidden, 0.2), self.composition.output)
            self.draw(outputs, self.noise[i], self.wave[:, i + window - 1], self.wave[:, i + window])
        self._keep_past()
        self.wave[:, :window].copy_(self.wave[:, self.block :].clone())

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
                at = self._column(layer)
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
        at = self._column(layer) + self.config.gate_channels
        return self.rows.flatten(0, 1)[:, at : at + self.config.residual_channels]

    def _column(self, layer: int) -> int:
        return layer * (self.config.gate_channels + self.config.residual_channels)


def _gate(row: Tensor) -> Tensor:
    """tanh x sigmoid: (B, 2 H) -> (B, H). The row's first half is spent."""
    row[:, : row.shape[1] // 2].tanh_()
    return F.glu(row, 1)
