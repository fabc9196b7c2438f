"""Where a training step's time goes: parts named in the code that they are parts of, timed only while somebody asks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch

REST = "rest"

_running: ContextVar[Stopwatch | None] = ContextVar("stopwatch", default=None)


class Stopwatch:
    """seconds: part -> its own time [s], that of the parts inside it left out; what has no name is `rest`.

    Every moment while it runs belongs to exactly one part. On a CPU the time is the process's, all threads together;
    on a GPU it is wall time, and the device is waited for wherever a part begins or ends.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.seconds: dict[str, float] = {}
        self._clock: Callable[[], float] = time.process_time if self.device.type == "cpu" else time.perf_counter
        self._inside = [REST]
        self._since = self._now()

    @contextlib.contextmanager
    def running(self) -> Iterator[Stopwatch]:
        """Times the parts that this thread enters meanwhile."""
        token = _running.set(self)
        self.reset()
        try:
            yield self
        finally:
            self.stop()
            _running.reset(token)

    def reset(self) -> None:
        """Start again from nothing."""
        self.seconds, self._since = {}, self._now()

    def stop(self) -> None:
        """Book the time until now; what comes later counts only after a `reset`."""
        self._book()
        self._since = float("inf")

    def enter(self, name: str) -> None:
        """A part begins."""
        self._book()
        self._inside.append(name)

    def leave(self) -> None:
        """The part that began last ends."""
        self._book()
        self._inside.pop()

    def _book(self) -> None:
        now = self._now()
        if now > self._since:
            part = self._inside[-1]
            self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
            self._since = now

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self._clock()


@contextlib.contextmanager
def part(name: str) -> Iterator[None]:
    """Names the statements inside for a Stopwatch that runs; does nothing where none does."""
    watch = _running.get()
    if watch is None:
        yield
        return
    watch.enter(name)
    try:
        yield
    finally:
        watch.leave()
