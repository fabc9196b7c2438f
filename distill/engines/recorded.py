"""A pass recorded as a CUDA graph: a host asks once for what it had to ask for launch by launch.

Flows are causal, so that a signal may be followed by anything: lengths are rounded up, and one graph serves many.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.student import Engine
from wavenet.errors import UserError
from wavenet.upsample import Conditioning

Run = Callable[[], Tensor]
_AT_MOST = 8  # graphs kept, the latest used ones


@dataclasses.dataclass(frozen=True)
class _Recording:
    """Where a graph reads, its replay, and where the replay leaves its result."""

    signal: Tensor
    cond: Conditioning
    replay: Run


class Recorded:
    """An engine, signal (B, T), Conditioning of the same T -> signal (B, T), on a CUDA GPU, by graphs.

    The first signal of a batch and rounded length has its pass run and recorded, later ones are copied into place and
    the graph replayed. A graph reads the weights where they lay when it was made. One thread at a time.

    record: makes of a pass what replays it; by default a CUDA graph, which wants tensors on a GPU.
    """

    def __init__(self, engine: Engine, record: Callable[[Run], Run] | None = None) -> None:
        self._engine, self._record = engine, record or _Graphs()
        self._kept: OrderedDict[tuple[int, ...], _Recording] = OrderedDict()

    @torch.no_grad()
    def __call__(self, signal: Tensor, cond: Conditioning) -> Tensor:
        """In one replay."""
        hop, batch = cond.kernel.shape[1], len(signal)
        frames = cond.length // hop
        room = rounded_up(frames)
        parts = 0 if cond.signals is None else cond.signals.shape[1]
        key = (batch, room, cond.frames.shape[1], hop, parts)
        if key not in self._kept:
            self._kept[key] = self._recording(signal, cond, room - frames)
            if len(self._kept) > _AT_MOST:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        kept = self._kept[key]
        _fill(kept.signal, signal)
        _fill(kept.cond.frames, cond.frames)
        kept.cond.kernel.copy_(cond.kernel)
        if cond.signals is not None:
            assert kept.cond.signals is not None
            _fill(kept.cond.signals, cond.signals)
        return kept.replay()[:, : frames * hop].clone()

    def _recording(self, signal: Tensor, cond: Conditioning, more: int) -> _Recording:
        hop = cond.kernel.shape[1]
        signals = None if cond.signals is None else F.pad(cond.signals, (0, more * hop))
        own = Conditioning(F.pad(cond.frames, (0, more)), cond.kernel.clone(), signals)
        given = F.pad(signal, (0, more * hop))
        return _Recording(given, own, self._record(lambda: self._engine(given, own)))


def rounded_up(frames: int) -> int:
    """The next number of frames with four leading binary digits at most: at most an eighth more."""
    step = 1 << max(0, frames.bit_length() - 4)
    return -(-frames // step) * step


def expect_gpu(name: str, device: torch.device) -> None:
    """Raises UserError for an engine of that name on any other device."""
    if device.type != "cuda":
        raise UserError(f"engine: found {name!r} for a model on {device.type}, expected one on a CUDA GPU")


def _fill(place: Tensor, values: Tensor) -> None:
    """Values at the beginning, zeros behind: what an earlier signal left could be a NaN."""
    place[..., : values.shape[-1]] = values
    place[..., values.shape[-1] :] = 0


class _Graphs:
    """Records passes; their intermediate values share one memory, as no two replay at a time."""

    def __init__(self) -> None:
        self.pool: Any = None  # its type has no public name

    def __call__(self, run: Run) -> Run:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # what compiles or sets itself up at first use must not be recorded
            run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        if self.pool is None:
            self.pool = torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self.pool):
            result = run()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay
