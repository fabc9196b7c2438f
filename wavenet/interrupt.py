"""Ctrl-C and a scheduler's SIGTERM: the step ends and is saved; a second one stops at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Inside `with`, a first signal sets `asked`, a second one raises KeyboardInterrupt; then all is as before."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interruption:
        try:
            self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        except ValueError:  # not in the main thread: nobody can press Ctrl-C here
            self._before = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def leave_signals_to_the_loop(worker: int) -> None:
    """For the processes that load data: signals reach the whole group, and the loop needs its workers to end the step.

    They end when it tells them to, or when it is gone.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
