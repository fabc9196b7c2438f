"""Every moment belongs to one part: own times, none twice, and nothing where no watch runs."""

import time

import pytest

from wavenet.stopwatch import REST, Stopwatch, part


def work(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_parts_have_their_own_time_and_add_up():
    began = time.process_time()
    with Stopwatch().running() as watch:
        work(0.02)
        with part("outer"):
            work(0.01)
            with part("inner"):
                work(0.04)
        with part("inner"):
            work(0.01)
    total = time.process_time() - began
    assert watch.seconds[REST] == pytest.approx(0.02, abs=0.005)
    assert watch.seconds["outer"] == pytest.approx(0.01, abs=0.005)
    assert watch.seconds["inner"] == pytest.approx(0.05, abs=0.005)
    assert sum(watch.seconds.values()) == pytest.approx(total, abs=0.002)


def test_what_comes_before_the_reset_and_after_the_stop_does_not_count():
    with Stopwatch().running() as watch:
        with part("early"):
            work(0.005)
        watch.reset()
        with part("counted"):
            work(0.005)
        watch.stop()
        with part("late"):
            work(0.005)
    assert set(watch.seconds) <= {"counted", REST}
    assert watch.seconds["counted"] >= 0.005


def test_parts_end_with_an_error_and_watches_with_their_block():
    with Stopwatch().running() as watch:
        with pytest.raises(KeyError), part("broken"):
            raise KeyError
        with part("after"):
            work(0.005)
    with part("unwatched"):
        work(0.001)
    assert watch.seconds["after"] >= 0.005
    assert "unwatched" not in watch.seconds
