"""A block of consecutive samples by Triton's programs: a launch a layer, and one between a sample and the next."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from wavenet.kernels.rows import between_rows, layer_row
from wavenet.kernels.weights import choices, head_rows, pack, padded
from wavenet.sampling.drivable import Drivable
from wavenet.sampling.stepper import Stepper

_TILE = 8192  # numbers of a matrix that a program holds, if its tile is not narrower than
_NARROWEST, _WIDEST = 16, 64  # columns
_SIGNALS = 8  # that go through one tile at most, one after the other
_WARPS = 4


class LaunchStepper(Stepper):
    """What a sample waits for is one launch a layer: gate, and what it pushes to all columns behind.

    The last one's launch is followed by one in which each signal's head draws, while other programs add the delayed
    taps of the next sample and keep the streams in rings, so that a later block's taps find them.
    """

    def __init__(self, model: Drivable, like: Tensor, temperature: float = 1.0, block: int = 32) -> None:
        """As for `Stepper`."""
        self.law = model.head
        super().__init__(model, like, block)
        config, composition, batch = self.config, self.composition, len(like)
        packed = pack(model.stack, model.head, model.gain, model.config.pre_emphasis, temperature)
        self.sizes, self.numbers, self.dilations = packed.sizes, packed.numbers, packed.dilations
        self.head = [packed.hidden, packed.hidden_bias, packed.output, packed.output_bias, packed.levels]
        self.signals = min(_SIGNALS, batch)
        # The first layer's program makes its own gates, which nobody else reads, and stores its stream, all of which
        # lack the samples still: its columns begin with the stream.
        self.push = [F.pad(composition.push[0], (config.residual_channels, 0)).contiguous(), *composition.push[1:]]
        self.entry = F.pad(composition.wave, (0, config.skip_channels)).contiguous()
        self.taps = like.new_zeros(0)
        if config.kernel_size > 1:
            self.taps = torch.stack([torch.stack(taps) for taps in composition.past])
        reaches = [(config.kernel_size - 1) * dilation for dilation in config.dilations]
        places = [0, *itertools.accumulate(reaches)]
        self.rings = like.new_zeros(batch, places[-1], config.residual_channels)
        self.ring_at = self.dilations.new_tensor(places[:-1])
        self.clock = self.dilations.new_zeros(1)

    def prepare(self, deviates: Tensor) -> Tensor:
        """As the draw of wavenet.kernels.pieces wants it."""
        return choices(self.law, deviates)

    @property
    def past(self) -> list[Tensor]:
        """Beside the samples, the streams of earlier blocks, and how many samples there were."""
        return [*super().past, self.rings, self.clock]

    def run(self) -> None:
        """Make one block."""
        self._between(-1)
        for i in range(self.block):
            for layer in range(len(self.push)):
                self._layer(i, layer)
            self._between(i)
        self.clock.add_(self.block)
        self.advance()

    def _layer(self, i: int, layer: int) -> None:
        half, push = self.config.gate_channels // 2, self.push[layer]
        row, tile = self.rows[i, :, layer * self.width :], _tile(padded(half))
        layer_row[(-(-push.shape[1] // tile), -(-self.batch // self.signals))](
            row,
            push,
            self.wave[:, i:],
            self.entry,
            self.batch,
            push.shape[1],
            row.stride(0),
            self.wave.stride(0),
            START=2 * half if layer == 0 else self.width,
            HALF=half,
            HALF_PADDED=padded(half),
            WINDOW=len(self.entry) if layer == 0 else 0,
            WINDOW_PADDED=padded(len(self.entry)),
            TILE=tile,
            SIGNALS=self.signals,
            num_warps=_WARPS,
        )

    def _between(self, i: int) -> None:
        config, sizes = self.config, self.sizes
        width, tile = padded(config.residual_channels), _tile(padded(config.residual_channels))
        tiles, groups = -(-config.gate_channels // tile), -(-self.batch // self.signals)
        layers = len(self.push) if config.kernel_size > 1 else 0
        between_rows[(self.batch + layers * tiles * groups,)](
            self.rows,
            self.noise,
            self.wave[:, len(self.entry) - 1 :],
            *self.head,
            self.numbers,
            self.taps,
            self.rings,
            self.ring_at,
            self.dilations,
            self.clock,
            i,
            self.batch,
            self.wave.stride(0),
            SLOTS=self.rings.shape[1],
            CHANNELS=self.noise.shape[2],
            TAPS=config.kernel_size,
            LAYERS=len(self.push),
            GATES=config.gate_channels,
            WIDTH=config.residual_channels,
            WIDTH_PADDED=width,
            SKIPS=config.skip_channels,
            SKIP=sizes["SKIP"],
            KINDS=sizes["KINDS"],
            COUNT=sizes["COUNT"],
            COUNT_PADDED=sizes["COUNT_PADDED"],
            GRID=sizes["GRID"],
            GREEDY=sizes["GREEDY"],
            HEAD_ROWS=head_rows(sizes, _TILE),
            BLOCK=self.block,
            TILE=tile,
            SIGNALS=self.signals,
            num_warps=_WARPS,
        )


def _tile(rows: int) -> int:
    """Columns of a tile of so many rows."""
    return max(_NARROWEST, min(_WIDEST, _TILE // rows))
