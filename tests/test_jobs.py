"""Trainings side by side: never more at once than asked, every status known, nothing left running."""

import os
import signal
import subprocess
import sys
import time

import pytest

from distill import jobs
from distill.jobs import Job, exit_status, run_jobs

# Says when it starts and ends, and ends with the status asked for (negative: by that signal).
CODE = """
import os, sys, time
status, seconds = int(sys.argv[1]), float(sys.argv[2])
print(time.time(), flush=True)
time.sleep(seconds)
if status < 0:
    os.kill(os.getpid(), -status)
print(time.time(), flush=True)
sys.exit(status)
"""


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    monkeypatch.setattr(jobs, "_CODE", CODE)


def spans(folder):
    """(start, end) of every job by its log."""
    return [tuple(float(line) for line in log.read_text().split()) for log in sorted(folder.iterdir())]


@pytest.mark.parametrize("at_once", [1, 2])
def test_so_many_at_once_and_every_status(tmp_path, at_once):
    wanted = {"a": 0, "b": 2, "c": 0}
    ended = []
    found = run_jobs(
        {name: Job([str(status), "0.3"], tmp_path / name) for name, status in wanted.items()}, at_once, ended.append
    )
    assert found == wanted
    assert list(found) == list(wanted)
    assert sorted(ended) == ["a", "b", "c"]
    found = spans(tmp_path)
    assert len(found) == 3
    most = max(sum(start <= moment < end for start, end in found) for moment, _ in found)
    assert most == at_once


def test_a_long_job_does_not_hold_up_the_others(tmp_path):
    lasting = {"long": "2.0", "a": "0.1", "b": "0.1"}
    run_jobs({name: Job(["0", seconds], tmp_path / name) for name, seconds in lasting.items()}, 2)
    _, b, long = spans(tmp_path)
    assert b[1] < long[1]


def test_after_an_interruption_what_runs_ends_and_nothing_starts(tmp_path):
    """Also where every child ends well: the interruption is not forgotten."""

    def interrupt(name):
        raise KeyboardInterrupt

    every = {name: Job(["0", seconds], tmp_path / name) for name, seconds in (("a", "0.1"), ("b", "1.0"), ("c", "0.1"))}
    with pytest.raises(KeyboardInterrupt):
        run_jobs(every, 2, interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert len((tmp_path / "b").read_text().split()) == 2


def test_ctrl_c_of_the_terminal_reaches_the_children_and_ends_with_130(tmp_path):
    """A signal to the whole group, as a terminal sends it; children that do not catch it die of it."""
    code = f"""
import signal
import sys
from pathlib import Path
from distill import jobs
from wavenet.errors import command
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it from the start
jobs._CODE = {CODE!r}
out = Path({str(tmp_path)!r})
every = {{name: jobs.Job(["0", "60"], out / name) for name in ("a", "b")}}
sys.exit(command("both")(lambda argv: jobs.exit_status(jobs.run_jobs(every, 2)))([]))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in "ab"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(parent.pid, signal.SIGINT)
    error = parent.communicate(timeout=60)[1]
    assert parent.returncode == 130
    assert "both: interrupted" in error


def test_an_error_leaves_nothing_running(tmp_path):
    def fail(name):
        raise RuntimeError

    begun = time.monotonic()
    with pytest.raises(RuntimeError):
        run_jobs({name: Job(["0", seconds], tmp_path / name) for name, seconds in (("a", "0.1"), ("b", "60"))}, 2, fail)
    assert time.monotonic() - begun < 30
    assert len((tmp_path / "b").read_text().split()) == 1


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([0, 0], 0),
        ([0, 2], 1),
        ([1, 130], 130),
        ([0, -2], 130),
        ([0, -9], 1),
        ([0, 3], 3),
        ([2, 3], 1),
        ([3, 130], 130),
    ],
)
def test_the_status_of_the_whole(statuses, expected):
    assert exit_status({str(place): status for place, status in enumerate(statuses)}) == expected


def test_a_killed_process_is_known_by_its_signal(tmp_path):
    assert run_jobs({"a": Job(["-9", "0"], tmp_path / "a")}, 1) == {"a": -9}
    assert os.path.exists(tmp_path / "a")
