"""Static memory of a block of consecutive samples, which a CUDA graph of one block finds again for the next one.

What makes the samples of a block is a subclass's: wavenet.sampling.block, tensor operations that any device has, and
wavenet.sampling.launches, Triton's programs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from wavenet.sampling.composition import compose
from wavenet.sampling.deviates import deviates
from wavenet.sampling.drivable import Drivable
from wavenet.upsample import Conditioning


class Drive(NamedTuple):
    """What drives a signal: noise (B, T, m) of the draw, conditioning of all layers' gates, and further inputs (B, S,
    T and more) with zeros on both sides, where the stack has any."""

    noise: Tensor
    cond: Conditioning
    signals: Tensor | None


class Stepper:
    """`load(drive, first)` brings in what drives samples first, first + 1, ...; `run()` makes them and keeps the past.

    After `run`, `samples` (B, block) holds them. Blocks follow each other from 0 on; `reset` goes back to the silence
    before the first, of the same signal or another one of as many: nothing of a signal but its past is held here. The
    last block may reach beyond the signal's T samples: what it makes there is nobody's.
    `rows` (block, B, W) holds every layer's gates and stream side by side (wavenet.sampling.composition), `wave` (B,
    k + 1 + block) the samples behind the k + 1 before them.
    """

    def __init__(self, model: Drivable, like: Tensor, block: int) -> None:
        """like (B, T, n): uniforms, of which the sizes B and n, precision and device count. block: samples made by one
        `run`, more than a kernel has."""
        config, batch = model.stack.config, len(like)
        assert block > config.kernel_size
        self.block, self.batch, self.config = block, batch, config
        self.composition = compose(model.stack, model.gain, model.config.pre_emphasis)
        self.noise = like.new_zeros(block, batch, self.prepare(like[:, :0]).shape[2])
        self.rows = like.new_zeros(block, batch, len(self.composition.start))
        self.wave = like.new_zeros(batch, config.kernel_size + 1 + block)

    def prepare(self, deviates: Tensor) -> Tensor:
        """Noise (B, T, m) of deviates (B, T, n), as the draw wants it."""
        raise TypeError(f"{type(self).__name__} does not define a draw")

    def run(self) -> None:
        """Make one block."""
        raise TypeError(f"{type(self).__name__} does not define how a block is made")

    @property
    def past(self) -> list[Tensor]:
        """What `run` keeps of a signal for its next block, all zeros in the silence before the first."""
        return [self.wave]

    def drive(self, model: Drivable, cond: Conditioning, uniforms: Tensor) -> Drive:
        """What `load` reads of a signal of that model, cond and uniforms (B, T, n) of all its samples."""
        assert model.stack.condition is not None
        signals, taps = cond.signals, self.config.kernel_size
        if signals is not None:
            signals = F.pad(signals, (taps - 1, -(-cond.length // self.block) * self.block - cond.length))
        noise = self.prepare(deviates(model.head, uniforms))
        return Drive(noise, cond.project(model.stack.condition.weight), signals)

    @property
    def samples(self) -> Tensor:
        """The samples (B, block) of the last run."""
        return self.wave[:, -self.block :]

    @property
    def width(self) -> int:
        """Columns of a layer in a row."""
        return self.config.gate_channels + self.config.residual_channels

    def reset(self) -> None:
        """Silence before the first sample."""
        for state in self.past:
            state.zero_()

    def load(self, drive: Drive, first: int) -> None:
        """Biases, conditioning and noise of samples first, ..., first + block - 1."""
        self.rows.copy_(self.composition.start)
        last = min(first + self.block, drive.cond.length)
        count, hop = last - first, drive.cond.kernel.shape[1]
        frame = first // hop
        cond = drive.cond.window(frame, (last - 1) // hop + 1).at_samples()[..., first - frame * hop :][..., :count]
        skips, gates, layers = self.config.skip_channels, self.config.gate_channels, len(self.composition.push)
        self.rows[:count, :, :-skips].unflatten(2, (layers, -1))[..., :gates].add_(
            cond.permute(2, 0, 1).unflatten(2, (layers, gates))
        )
        if drive.signals is not None:
            taps = self.config.kernel_size
            windows = drive.signals[:, :, first : first + self.block + taps - 1].unfold(2, taps, 1)
            self.rows[:, :, :-skips] += windows.permute(2, 0, 3, 1).flatten(2) @ self.composition.signals
        self.noise[:count].copy_(drive.noise[:, first:last].transpose(0, 1))

    def advance(self) -> None:
        """The block's last samples become those before the next one."""
        window = len(self.composition.wave)
        self.wave[:, :window].copy_(self.wave[:, self.block :].clone())
