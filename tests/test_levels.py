"""The noise floor: the level of the noise that was added, where the recording pauses, and nowhere else."""

import math

import numpy as np
import pytest
import torch

from distill.levels import noise_floor, pauses
from wavenet.config import AudioConfig
from wavenet.data import load_clip, open_corpus

RATE = 8000
AUDIO = AudioConfig(sample_rate=RATE, n_fft=256, win_length=256, hop_length=64, n_mels=40, f_max=4000.0)


def sentence(seed=0):
    """Half a second of loud noise, half a second of nothing, three times over; and where it is silent."""
    generator = torch.Generator().manual_seed(seed)
    loud = 0.1 * torch.randn(3, RATE // 2, generator=generator)
    wav = torch.cat([loud, torch.zeros_like(loud)], dim=1).flatten()
    return wav, (wav == 0).numpy()


def noise(like, dbfs, seed=1):
    return 10 ** (dbfs / 20) * torch.randn(len(like), generator=torch.Generator().manual_seed(seed))


def test_pauses_are_the_silence():
    wav, silence = sentence()
    found = np.repeat(pauses(wav, RATE), 160)
    assert found.sum() > 0.3 * len(wav)
    assert silence[: len(found)][found].all()


@pytest.mark.parametrize("dbfs", [-70.0, -50.0, -30.0])
def test_the_noise_added_is_the_floor(dbfs):
    wav, _ = sentence()
    assert noise_floor(wav + noise(wav, dbfs), wav, RATE) == pytest.approx(dbfs, abs=0.5)


def test_noise_on_real_pauses_adds_its_power():
    wav = load_clip(open_corpus("bundled", AUDIO).test[0], AUDIO)
    own = noise_floor(wav, wav, RATE)
    assert -90 < own < -50
    for dbfs in (-50.0, -35.0):
        expected = 10 * math.log10(10 ** (own / 10) + 10 ** (dbfs / 10))
        assert noise_floor(wav + noise(wav, dbfs), wav, RATE) == pytest.approx(expected, abs=0.5)


def test_a_steady_background_is_understated_by_a_known_little():
    """The quietest tenth of the frames is chosen by the recording's own noise: its floor reads low, other noise not."""
    wav, _ = sentence()
    recording = wav + noise(wav, -50, seed=2)
    assert -51 < noise_floor(recording, recording, RATE) < -50
    assert noise_floor(wav + noise(wav, -50, seed=3), recording, RATE) == pytest.approx(-50, abs=0.3)


def test_a_gain_moves_the_floor_by_itself():
    wav, _ = sentence()
    system = wav + noise(wav, -40)
    assert noise_floor(0.5 * system, wav, RATE) == pytest.approx(noise_floor(system, wav, RATE) - 6.0206, abs=1e-3)
    # Pauses are relative to the speech: the level of the recording chooses nothing.
    assert noise_floor(system, 0.1 * wav, RATE) == pytest.approx(noise_floor(system, wav, RATE), abs=1e-9)


def test_silence_is_the_rounding_of_a_file_and_no_infinity():
    wav, _ = sentence()
    exact = 1000 * torch.rand(8000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rounding = (exact.round() - exact) / 32768
    expected = 10 * math.log10(float(rounding.square().mean()))
    assert noise_floor(wav, wav, RATE) == pytest.approx(expected, abs=0.1)
    assert noise_floor(wav + 0.01, wav, RATE) == pytest.approx(expected, abs=0.1)  # a constant is not heard


@pytest.mark.parametrize("length", [0, 100, 8000])
def test_no_pause_is_not_a_number(length):
    wav = 0.1 * torch.randn(length, generator=torch.Generator().manual_seed(0))
    assert math.isnan(noise_floor(wav, wav, RATE))
