"""What is timed: every net with every method that it has, at one length and batch, and the checks before."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill.engines.table import DEFAULT, ENGINES, ROUNDS, build
from distill.speed.agreement import FLIPS, allowed, difference, engine_difference, not_given_back, speakers_of
from distill.speed.timing import synchronize
from distill.student import Engine, Student
from wavenet.errors import UserError
from wavenet.teacher import SAMPLERS, Teacher

PARALLEL = "parallel"  # one pass, by torch; a student's other engines go by their own names
_PASSES = (PARALLEL, *(name for name in ENGINES if name != DEFAULT))
_TRIAL = 0.01  # seconds of audio
_PART = 0.2  # of a run's budget that a trial may take
_HASTE = 2.0  # by how much the rate may grow with length and, on a CPU, with the batch
# Slowest first, as they stand in tables and ratios.
KNOWN = (*SAMPLERS, *_PASSES)


_BUILT: weakref.WeakKeyDictionary[Any, dict[str, Engine]] = weakref.WeakKeyDictionary()


class Contestant(NamedTuple):
    """One row to be: net and method by name, signals made at once, seconds of each, samples of all, and the run.

    held: bytes on a GPU that the method keeps for itself between runs: weights of its own, recordings.
    """

    net: str
    method: str
    batch: int
    seconds: float
    samples: int
    run: Callable[[], Tensor]
    held: int = 0


def methods_of(model: nn.Module, methods: Sequence[str]) -> list[str]:
    """Those of `methods` that a model has: sequential ones for a teacher, passes for the others."""
    if isinstance(model, Teacher):
        return [method for method in methods if method not in _PASSES]
    passes = _PASSES if isinstance(model, Student) else (PARALLEL,)
    return [method for method in methods if method in passes]


def contestant(name: str, model: Any, mel: Tensor, method: str, seconds: float, batch: int, seed: int) -> Contestant:
    """One net by one method, on mel (1, M, F) repeated to so many seconds and signals."""
    audio = model.config.audio
    tiled = repeated(model, mel, seconds, batch)
    samples = tiled.shape[2] * audio.hop_length
    extra: dict[str, Any] = dict(speakers_of(model, batch, tiled.device))
    if method not in _PASSES:
        extra["method"] = method
    elif method != PARALLEL:
        extra["engine"] = _engine(method, model)

    def run() -> Tensor:
        wav: Tensor = model.sample(tiled, generator=torch.Generator().manual_seed(seed), **extra)
        assert wav.shape == (batch, samples)
        return wav

    return Contestant(name, method, batch, samples / audio.sample_rate, batch * samples, run)


def pace(
    name: str, model: Any, mel: Tensor, method: str, seconds: float, budget: float, seed: int, batch: int = 1
) -> float:
    """Seconds of audio of each of `batch` signals that a method makes in a second, by trials: longer ones where cheap.

    Each trial is run twice, and the second timed: the first may compile or record, for what is new in its shape.
    seconds: of audio, what is to be timed; budget: seconds that it may take.
    """
    audio, device = model.config.audio, next(model.parameters()).device
    # Two frames at least: what compiles takes a size of one for a constant, and compiles again for all others.
    frame = audio.hop_length / audio.sample_rate
    length, made, rate = max(2 * frame, min(seconds, _TRIAL)), 0, 0.0
    for _ in range(3):  # what a call costs beside its samples shows in short trials
        one = contestant(name, model, mel, method, length, batch, seed)
        if one.samples == made:
            break
        one.run()
        synchronize(device)
        start = time.perf_counter()
        one.run()
        synchronize(device)
        made, rate = one.samples, one.seconds / (time.perf_counter() - start)
        length = max(2 * frame, min(seconds, _PART * budget * rate))
    return rate


def sweep(
    one: Contestant,
    model: Any,
    mel: Tensor,
    *,
    asked: float,
    within: float,
    lengths: Sequence[float],
    batches: Sequence[int],
    budget: float,
    seed: int,
    announce: Callable[[str], object],
) -> Iterator[Contestant]:
    """Contestants beside `one`, of other lengths and of other batches at its own length; a line for each left out.

    asked: seconds of audio that were asked of `one`; within: seconds that one signal makes in `budget` seconds. Left
    out is what would take much longer: by the time of one signal, or, where a batch may take no longer than that (on a
    GPU), by a trial of the batch.
    """
    lockstep = _in_lockstep(next(model.parameters()).device)
    places = [(length, one.batch) for length in lengths] + [(one.seconds, count) for count in batches]
    for length, count in dict.fromkeys(places):
        if count == one.batch and length in (asked, one.seconds):
            continue
        most = _HASTE * max(within, one.seconds) / count  # `one` is of whole frames
        if length > most and count > 1 and lockstep:
            most = _HASTE * budget * pace(one.net, model, mel, one.method, length, budget, seed, count)
        if length > most:
            announce(f"{one.net}: {one.method} is not timed on {count} x {length:.3g} s: beyond {budget:g} s a run")
            continue
        yield contestant(one.net, model, mel, one.method, length, count, seed)


def _in_lockstep(device: torch.device) -> bool:
    """Whether a batch may take as long as one signal: on a GPU, where one leaves most of it idle."""
    return device.type == "cuda"


def repeated(model: Any, mel: Tensor, seconds: float, batch: int) -> Tensor:
    """mel (1, M, F) repeated to a batch of so many seconds, in the model's precision and place."""
    audio = model.config.audio
    frames = max(1, round(seconds * audio.sample_rate / audio.hop_length))
    return mel.repeat(batch, 1, -(-frames // mel.shape[2]))[:, :, :frames].to(next(model.parameters()))


def agreement(name: str, model: Any, mel: Tensor, method: str, short: float, long: float, seed: int) -> Iterator[str]:
    """What the checks of a method found, line by line; UserError when it is not the reference's computation.

    A sequential method must give the naive sampler's audio over `short` seconds (0: not asked), and its own back under
    teacher forcing over `long`; a student's engine the audio of torch's, within what it rounds.
    """
    whole = repeated(model, mel, long, 1)
    hop = model.config.audio.hop_length
    if method in _PASSES:
        apart, largest = engine_difference(model, whole, _engine(method, model), seed)
        _require_near(name, method, "torch", apart, largest * ROUNDS[method] if method in ROUNDS else allowed(largest))
        over = f"{whole.shape[2] * hop} samples of at most {largest:.2g}"
        yield f"{name}: {method} equals torch within {apart:.1g} over {over}"
        return
    if short:
        brief = repeated(model, mel, short, 1)
        apart, largest = difference(model, brief, method, "naive", seed)
        _require_near(name, method, "naive sampling", apart, allowed(largest))
        yield f"{name}: {method} equals naive sampling within {apart:.1g} over {brief.shape[2] * hop} samples"
    lost = not_given_back(model, whole, method, seed)
    if lost > FLIPS:
        raise UserError(
            f"{name}: found {lost:.2%} of {method} samples that teacher forcing does not give back, expected at most "
            f"{FLIPS:.1%}: not timed"
        )
    yield f"{name}: teacher forcing gives {1 - lost:.2%} of {whole.shape[2] * hop} {method} samples back"


def _engine(method: str, model: Any) -> Engine:
    """Built once for each student: a graph takes minutes to make, and memory."""
    engines = _BUILT.setdefault(model, {})
    if method not in engines:
        engines[method] = build(method, model)
    return engines[method]


def _require_near(name: str, method: str, reference: str, apart: float, most: float) -> None:
    if not apart <= most:  # a NaN is no agreement
        raise UserError(
            f"{name}: found {method} and {reference} {apart:.3g} apart, expected at most {most:.3g} at the same "
            "noise: not timed"
        )
