"""Several trainings side by side: a process and a thread each, faster than several threads one after the other."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from wavenet.errors import DONE, INTERRUPTED, SOME_FAILED, STOPPED

_CODE = "import sys; from distill.train import main; sys.exit(main(sys.argv[1:]))"
_PAUSE = 0.2  # seconds between two looks at what runs


class Job(NamedTuple):
    """One call of distill-train: its arguments, and the file that its output goes to (None: this terminal)."""

    arguments: Sequence[str]
    log: Path | None


def run_jobs(
    jobs: Mapping[str, Job], at_once: int, ended: Callable[[str], object] = lambda name: None
) -> dict[str, int]:
    """Run every job, `at_once` at a time; {name: exit status}, and `ended(name)` as each one stops.

    After Ctrl-C nothing more is started, the running ones are waited for, as they save, and KeyboardInterrupt is raised
    again. A process that was killed has the negative of its signal.
    """
    waiting = list(jobs)
    running: dict[str, subprocess.Popen[bytes]] = {}
    statuses: dict[str, int] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running[waiting[0]] = _start(jobs[waiting[0]])
                waiting.pop(0)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                statuses[name] = running.pop(name).returncode
                ended(name)
            time.sleep(_PAUSE)
    except KeyboardInterrupt:  # the terminal sent it to the children too
        for process in running.values():
            process.wait()
        raise
    finally:
        for process in running.values():
            if process.poll() is None:
                process.terminate()
                process.wait()
    return {name: statuses[name] for name in jobs}


def exit_status(statuses: Mapping[str, int]) -> int:
    """That of the whole: 130 where one was interrupted, else 1 where one failed, 3 where monitors stopped some."""
    if not {INTERRUPTED, -signal.SIGINT}.isdisjoint(statuses.values()):
        return INTERRUPTED
    failed = {status for status in statuses.values() if status != DONE}
    if not failed:
        return DONE
    return STOPPED if failed == {STOPPED} else SOME_FAILED


def _start(job: Job) -> subprocess.Popen[bytes]:
    with contextlib.ExitStack() as stack:
        log = None if job.log is None else stack.enter_context(job.log.open("w", encoding="utf-8"))
        return subprocess.Popen([sys.executable, "-c", _CODE, *job.arguments], stdout=log, stderr=log)
