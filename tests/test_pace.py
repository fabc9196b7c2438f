"""Which rows a benchmark times, by trials on an invented clock: compilers, batches that go in lockstep, budgets."""

import types

import pytest
import torch

from distill.speed import contestants
from distill.speed.contestants import Contestant, pace, sweep

HOP, RATE = 256, 22050
FRAME = HOP / RATE
MODEL = types.SimpleNamespace(
    config=types.SimpleNamespace(audio=types.SimpleNamespace(hop_length=HOP, sample_rate=RATE)),
    parameters=lambda: iter([torch.zeros(1)]),
)
MEL = torch.zeros(1, 1, 1)


@pytest.fixture
def runs(monkeypatch):
    """A clock that runs move on: cost(frames, batch, number of the run) in seconds; made: (frames, batch) of each."""
    found = types.SimpleNamespace(cost=None, made=[], now=0.0)

    def contestant(name, model, mel, method, seconds, batch, seed):
        frames = max(1, round(seconds / FRAME))

        def run():
            found.now += found.cost(frames, batch, len(found.made))
            found.made.append((frames, batch))

        return Contestant(name, method, batch, frames * FRAME, batch * frames * HOP, run)

    monkeypatch.setattr(contestants, "contestant", contestant)
    monkeypatch.setattr(contestants, "time", types.SimpleNamespace(perf_counter=lambda: found.now))
    return found


def compiling(rate, first):
    """Samples at `rate` a second; what is new, one frame and any other number of them, compiles for `first` seconds."""
    seen = set()

    def cost(frames, batch, number):
        new = (frames == 1) not in seen
        seen.add(frames == 1)
        return batch * frames * HOP / rate + (first if new else 0.0)

    return cost


def rows(runs, rate, *, seconds=5.0, budget=4.0, lengths=(), batches=()):
    """(lines announced, (seconds, batch) of the further rows) as a benchmark has them."""
    within, said = budget * rate / RATE, []
    base = contestants.contestant("net", MODEL, MEL, "graph", min(seconds, within), 1, 0)
    found = sweep(
        base,
        MODEL,
        MEL,
        asked=seconds,
        within=within,
        lengths=lengths,
        batches=batches,
        budget=budget,
        seed=0,
        announce=said.append,
    )
    return [(round(one.seconds, 1), one.batch) for one in found], said


def test_what_compiles_at_first_is_not_counted(runs):
    runs.cost = compiling(rate=1e6, first=60.0)
    assert pace("net", MODEL, MEL, "compile", 5.0, 4.0, 0) == pytest.approx(1e6 / RATE)
    assert min(frames for frames, _ in runs.made) == 2


def test_a_recording_made_for_every_length_is_not_counted(runs):
    seen = set()

    def cost(frames, batch, number):
        new, _ = frames not in seen, seen.add(frames)
        return frames * HOP / 9000 + (0.4 if new else 0.0)

    runs.cost = cost
    assert pace("net", MODEL, MEL, "graph", 5.0, 4.0, 0) == pytest.approx(9000 / RATE)


def test_longer_trials_show_the_rate_behind_the_cost_of_a_call(runs):
    runs.cost = lambda frames, batch, number: 0.2 + frames * HOP / 9000
    assert 0.8 * 9000 / RATE < pace("net", MODEL, MEL, "graph", 5.0, 10.0, 0) < 9000 / RATE


def test_a_slow_method_is_tried_once(runs):
    runs.cost = lambda frames, batch, number: frames * HOP / 50
    assert pace("net", MODEL, MEL, "naive", 0.05, 4.0, 0) == pytest.approx(50 / RATE)
    assert runs.made == [(2, 1)] * 2


def test_a_batch_is_tried_before_it_is_left_out_on_a_gpu(runs, monkeypatch):
    """In lockstep 128 signals take as long as one; by the time of one signal they would be left out."""
    runs.cost = lambda frames, batch, number: frames * HOP / 30_000 * (1 if batch < 1000 else batch)
    found, said = rows(runs, 30_000, batches=(8, 128, 1000))
    assert found == []
    assert len(said) == 3
    monkeypatch.setattr(contestants, "_in_lockstep", lambda device: True)
    found, said = rows(runs, 30_000, batches=(1, 8, 128, 1000))
    assert found == [(5.0, 8), (5.0, 128)]
    assert said == ["net: graph is not timed on 1000 x 5 s: beyond 4 s a run"]


def test_a_method_that_makes_less_is_swept_at_what_it_makes(runs, monkeypatch):
    """Of 5 s one makes 1.6 s in the budget: batches of 1.6 s; lengths within twice the budget."""
    monkeypatch.setattr(contestants, "_in_lockstep", lambda device: True)
    runs.cost = lambda frames, batch, number: frames * HOP / 9000
    found, said = rows(runs, 9000, lengths=(1.0, 5.0, 20.0), batches=(8, 128))
    assert found == [(1.0, 1), (1.6, 8), (1.6, 128)]
    assert said == ["net: graph is not timed on 1 x 20 s: beyond 4 s a run"]


def test_whole_frames_leave_nothing_out(runs):
    """1.633 s are within the budget and 141 frames are 1.637 s, of which two signals are still timed."""
    assert rows(runs, 9000, batches=(2, 3)) == ([(1.6, 2)], ["net: graph is not timed on 3 x 1.64 s: beyond 4 s a run"])


def test_lockstep_is_a_gpus():
    assert contestants._in_lockstep(torch.device("cuda", 0))
    assert not contestants._in_lockstep(torch.device("cpu"))
