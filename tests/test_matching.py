"""Level matching: versions of a clip speak equally loudly, pauses do not count, nothing clips."""

import math

import numpy as np
import pytest
import torch

from distill.matching import HEADROOM_DB, LIMIT_DB, active_level, matching_gains

RATE = 8000


def noise(seconds: float, rms: float, seed: int = 0) -> torch.Tensor:
    return rms * torch.randn(int(seconds * RATE), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def peak_db(wav: torch.Tensor) -> float:
    return 20 * math.log10(float(wav.abs().max()))


def test_level_of_a_sine_is_its_rms():
    sine = 0.5 * torch.sin(2 * math.pi * 200 / RATE * torch.arange(RATE, dtype=torch.float64))
    assert active_level(sine, RATE) == pytest.approx(20 * math.log10(0.5 / math.sqrt(2)), abs=0.01)


def test_pauses_and_offset_do_not_count():
    """Half silence takes 3 dB off the rms of the whole, and off the active level nothing."""
    speech = noise(1.0, 0.1)
    paused = torch.cat([speech, noise(1.0, 1e-4, seed=1)])
    assert active_level(paused, RATE) == pytest.approx(active_level(speech, RATE), abs=0.02)
    assert active_level(paused + 0.3, RATE) == pytest.approx(active_level(paused, RATE), abs=1e-6)
    assert active_level(torch.cat([speech, noise(1.0, 0.01, seed=1)]), RATE) < active_level(speech, RATE) - 2


@pytest.mark.parametrize("factor", [0.5, 0.2, 1.7])
def test_gain_undoes_a_gain(factor):
    wav = noise(1.0, 0.05)
    first, second = matching_gains([wav, factor * wav], RATE)
    assert first == 0.0
    assert second == pytest.approx(-20 * math.log10(factor), abs=1e-9)


def test_match_is_exact_and_leaves_headroom_where_a_gain_would_clip():
    """A quiet version with a high peak: all come down together, so that its peak stays below full scale."""
    loud, spiky = noise(1.0, 0.2), noise(1.0, 0.05, seed=1)
    spiky[4000] = 0.9
    gains = matching_gains([loud, spiky], RATE)
    matched = [wav * 10 ** (gain / 20) for wav, gain in zip((loud, spiky), gains, strict=True)]
    assert active_level(matched[0], RATE) == pytest.approx(active_level(matched[1], RATE), abs=1e-6)
    assert max(map(peak_db, matched)) == pytest.approx(-HEADROOM_DB, abs=1e-6)
    assert gains[0] < -5


def test_reference_is_the_one_named():
    quiet, loud = noise(1.0, 0.01), noise(1.0, 0.1)
    assert matching_gains([quiet, loud], RATE, reference=1)[1] == 0.0
    assert matching_gains([quiet, loud], RATE, reference=0)[0] == 0.0


def test_silent_and_nearly_silent_versions():
    wav = noise(1.0, 0.05)
    gains = matching_gains([wav, torch.zeros(RATE), 1e-3 * wav, wav[:0], wav[:3]], RATE)
    assert np.isfinite(gains).all()
    assert gains[:4] == [0.0, 0.0, LIMIT_DB, 0.0]
    assert matching_gains([torch.zeros(RATE), wav], RATE) == [0.0, 0.0]
    assert active_level(torch.full((RATE,), 0.5), RATE) == -math.inf
