"""The F0 tracker on signals whose pitch is known, and beside pyin on speech."""

import numpy as np
import pytest
import torch

from wavenet.config import AudioConfig
from wavenet.data import load_clip, open_corpus
from wavenet.errors import UserError
from wavenet.pitch import tracker
from wavenet.pitch.tracker import track


def glide(f_from, f_to, rate, seconds, snr, pulses, gain=0.2, seed=0):
    """Harmonics on an exponential glide, on for 0.35 s and off for 0.35 s, in noise: wav, f0 (T,), voiced (T,)."""
    time = np.arange(int(rate * seconds)) / rate
    f0 = f_from * (f_to / f_from) ** (time / seconds)
    phase = 2 * np.pi * np.cumsum(f0) / rate
    wav = np.zeros_like(time)
    for k in range(1, int(0.45 * rate / max(f_from, f_to))):
        wav += np.cos(k * phase) if pulses else np.cos(k * phase + 0.7 * k * k) / k
    voiced = (time / 0.35).astype(int) % 2 == 0
    wav *= gain * voiced / np.abs(wav).max()
    noise = np.random.default_rng(seed).standard_normal(len(wav))
    wav += noise * np.sqrt((wav[voiced] ** 2).mean()) * 10 ** (-snr / 20)
    return torch.from_numpy(wav).float(), f0, voiced


@pytest.mark.parametrize(("rate", "hop"), [(8000, 64), (22050, 256)])
@pytest.mark.parametrize(("f_from", "f_to"), [(45, 100), (100, 45), (100, 300), (300, 100)])
@pytest.mark.parametrize(("snr", "pulses"), [(36, True), (36, False), (10, True)])
def test_known_glides(rate, hop, f_from, f_to, snr, pulses):
    wav, f0, voiced = glide(f_from, f_to, rate, 4.0, snr, pulses)
    found = track(wav, rate, hop)
    assert len(found.f0) == len(found.voiced) == len(wav) // hop
    middle = np.arange(len(found.f0)) * hop + hop // 2
    assert (found.voiced != voiced[middle]).mean() < 0.05
    both = found.voiced & voiced[middle]
    cents = np.abs(1200 * np.log2(found.f0[both] / f0[middle][both]))
    assert np.median(cents) < 5
    assert (cents > 600).mean() < 0.02


def test_frames_are_centred_on_their_samples():
    """On a steep glide an error of half a hop in time would read as 1.3% of pitch, always of one sign."""
    wav, f0, voiced = glide(100, 300, 8000, 1.0, 60, False)
    found = track(wav, 8000, 200)
    middle = np.arange(len(found.f0)) * 200 + 100
    both = found.voiced & voiced[middle]
    assert np.abs(np.median(found.f0[both] / f0[middle][both]) - 1) < 0.002


@pytest.mark.parametrize("gap", [0.0, 0.02])
def test_creak_in_passing_is_no_octave(gap):
    """A voice at 200 Hz, every second pulse weak for 0.15 s: two periods correlate better, after a pause or without."""
    wav, time, pulse = np.zeros(12000), 0.1, 0
    ring = np.exp(-np.arange(80) / 12) * np.cos(2 * np.pi * 500 / 8000 * np.arange(80))
    while time < 1.4:
        weak = 0.7 < time < 0.85 and pulse % 2
        place = int(time * 8000)
        wav[place : place + 80] += (0.6 if weak else 1.0) * ring
        time, pulse = time + 1 / 200, pulse + 1
    wav[5600 : 5600 + int(gap * 8000)] = 0
    wav += 0.003 * np.random.default_rng(0).standard_normal(len(wav))
    found = track(torch.from_numpy(wav).float(), 8000, 80)
    assert found.voiced.sum() > 125
    np.testing.assert_allclose(found.f0[found.voiced], 200, rtol=0.03)


def test_a_pause_frees_the_pitch():
    """Two voices an octave apart with 0.3 s between them are both right from their first frames."""
    time = np.arange(8000) / 8000
    low, high = (sum(np.cos(2 * np.pi * f0 * k * time[:3200]) / k for k in range(1, 8)) for f0 in (110, 220))
    wav = 0.01 * np.random.default_rng(0).standard_normal(9600)
    wav[:3200] += low
    wav[5600:8800] += high
    found = track(torch.from_numpy(wav).float(), 8000, 80)
    for first, last, f0 in ((3, 37, 110), (73, 107, 220)):
        assert found.voiced[first:last].all()
        np.testing.assert_allclose(found.f0[first:last], f0, rtol=0.03)


def lattice(frames):
    """Correlations (frames, L) of a voice whose two lags, 5 and 10 ms, are nearly as good, and the lags."""
    lags = np.arange(16, 201)
    correlation = np.full((frames, len(lags)), 0.1)
    correlation[:, 40 - 16], correlation[:, 80 - 16] = 0.85, 0.80
    return correlation, lags


def chosen(correlation, lags, step):
    """The path's lags, 0 where it is unvoiced."""
    states = tracker._path(correlation, np.ones(len(correlation)), lags, step)
    return np.where(states > 0, lags[np.maximum(states, 1) - 1], 0)


@pytest.mark.parametrize("rate", [1, 2, 4])
def test_a_gap_of_a_moment_is_no_way_to_another_octave(rate, monkeypatch):
    """20 ms are unvoiced, 0.18 s between them favour two periods: the pitch stays. At any frame rate."""
    correlation, lags = lattice(60)
    correlation[20:40, 80 - 16], correlation[20:40, 40 - 16] = 0.99, 0.86
    correlation[[20, 39]] = 0.45
    path = chosen(correlation.repeat(rate, axis=0), lags, 0.010 / rate)
    assert set(path) <= {0, 40}
    monkeypatch.setattr(tracker, "_WALK_COST", 0.0)  # what memory is there for
    assert 80 in chosen(correlation.repeat(rate, axis=0), lags, 0.010 / rate)


def test_a_long_pause_is_a_way_to_another_octave(monkeypatch):
    """0.3 s without a voice, then one an octave lower: pause and all are seen as what they are."""
    correlation, lags = lattice(80)
    correlation[:, 80 - 16] = 0.1
    correlation[25:55] = 0.45
    correlation[55:] = 0.1
    correlation[55:, 80 - 16] = 0.9
    path = chosen(correlation, lags, 0.010)
    np.testing.assert_array_equal(path, [40] * 25 + [0] * 30 + [80] * 25)
    monkeypatch.setattr(tracker, "_WALK_COST", 1000.0)
    assert list(chosen(correlation, lags, 0.010)) != list(path)


def test_levels_are_relative_to_the_clip():
    wav, _, _ = glide(120, 180, 8000, 2.0, 36, True)
    loud, quiet = track(wav, 8000, 64), track(wav * 0.01, 8000, 64)
    assert (loud.voiced == quiet.voiced).all()
    np.testing.assert_allclose(loud.f0, quiet.f0, rtol=1e-3)


def test_noise_and_silence_are_unvoiced():
    noise = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(0))
    assert track(noise, 8000, 64).voiced.mean() < 0.02
    silent = track(torch.zeros(8000), 8000, 64)
    assert not silent.voiced.any()
    assert (silent.f0 == 0).all()


def test_wrong_input_is_named():
    with pytest.raises(UserError, match=r"wav: found shape \(1, 800\)"):
        track(torch.zeros(1, 800), 8000, 64)
    with pytest.raises(UserError, match="f_min, f_max"):
        track(torch.zeros(800), 8000, 64, f_min=300, f_max=200)


def test_agrees_with_pyin_on_speech():
    import librosa

    audio = AudioConfig()
    hop = audio.hop_length
    wav = load_clip(open_corpus("bundled", audio).test[0], audio)
    ours = track(wav, audio.sample_rate, hop)
    f0, voiced, _ = librosa.pyin(
        wav.numpy(), fmin=60, fmax=500, sr=audio.sample_rate, frame_length=1024, hop_length=hop // 2
    )
    # pyin's frames are centred on multiples of its hop: every second one is the middle of ours.
    f0, voiced = f0[1::2][: len(ours.f0)], voiced[1::2][: len(ours.f0)]
    both = voiced & ours.voiced
    assert both.mean() > 0.4
    assert (np.abs(ours.f0[both] / f0[both] - 1) < 0.03).mean() > 0.9
    assert (ours.voiced == voiced).mean() > 0.8
