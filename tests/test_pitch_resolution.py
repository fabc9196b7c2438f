"""F0 resolved: the tracker's window by quadrature, the least squares by a dense solver, and a voice tracked again."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from wavenet.config import AudioConfig
from wavenet.excitation import phase
from wavenet.features import LogMel
from wavenet.pitch import resolution
from wavenet.pitch.contour import Pitch, filled
from wavenet.pitch.resolution import resolved
from wavenet.pitch.tracker import BAND, F_MAX, F_MIN, WINDOW, track

AUDIO = AudioConfig(8000, 256, 256, 96, 40, 0.0, 4000.0)  # 12 ms: the window reaches 1.46 frames


def mel_of(energy, audio=AUDIO):
    """A mel (1, M, F) whose bands below 1 kHz all have the given power over frames (F,)."""
    return (0.5 * torch.as_tensor(energy).log()).expand(1, audio.n_mels, -1).double()


def pitch_of(log_f0, voiced=None):
    log_f0 = torch.as_tensor(log_f0)[None]
    return Pitch(log_f0.exp(), torch.ones_like(log_f0) if voiced is None else torch.as_tensor(voiced)[None].double())


def windowed_mean(contour, energy, frame, half):
    """The mean of a contour over the window around a frame, weighted by energy, both linear; scipy's quadrature.

    Beyond its ends the contour is held, and the energy fades over a frame.
    """
    places, energy, contour = np.arange(-1, len(contour) + 1), np.pad(energy, 1), np.pad(contour, 1, mode="edge")
    low, high = max(-1.0, frame - half), min(places[-1], frame + half)
    points = [k for k in places if low < k < high]

    def level(u):
        return np.interp(u, places, energy)

    total, _ = quad(level, low, high, points=points, epsabs=1e-12)
    return quad(lambda u: level(u) * np.interp(u, places, contour), low, high, points=points, epsabs=1e-12)[0] / total


def contours(frames=12, seed=0):
    rng = np.random.default_rng(seed)
    return np.log(150) + np.cumsum(0.03 * rng.standard_normal(frames)), np.exp(2 * rng.standard_normal(frames))


@pytest.mark.parametrize("hop", [96, 160, 300])  # windows of 2.9, 1.75 and 0.93 frames
def test_what_the_window_averaged_comes_back(monkeypatch, hop):
    """Without the price of steepness, from means that scipy integrated."""
    monkeypatch.setattr(resolution, "_TAU", 1e-7)
    monkeypatch.setattr(resolution, "_RIDGE", 1e-14)
    audio = dataclasses.replace(AUDIO, n_fft=512, win_length=512, hop_length=hop)
    contour, energy = contours()
    half = WINDOW / 2 * audio.sample_rate / hop
    means = [windowed_mean(contour, energy, frame, half) for frame in range(len(contour))]
    found = resolved(pitch_of(np.array(means)), mel_of(energy), audio).f0[0].log()
    assert np.abs(means - contour).max() > 1e-3
    np.testing.assert_allclose(found, contour, atol=1e-5)  # of means that moved a hundred times as much


def test_the_solution_is_that_of_dense_least_squares():
    """Stretches apart, jumps of an octave apart too; frames without a voice are interpolated."""
    tracked, energy = contours(30)
    voiced = np.ones(30)
    voiced[[0, 7, 8, 20]] = 0
    tracked[14:] -= math.log(2)
    found = resolved(pitch_of(tracked, voiced), mel_of(energy), AUDIO).f0[0].log().numpy()
    half, step = WINDOW / 2 / 0.012, 0.012
    stretches = [range(1, 7), range(9, 14), range(14, 20), range(21, 30)]
    for stretch in stretches:
        inside = list(stretch)
        units = np.eye(len(inside))
        rows = [[windowed_mean(unit, energy[inside], frame, half) for unit in units] for frame in range(len(inside))]
        steep = resolution._TAU / step * np.diff(units, axis=0)
        expected, *_ = np.linalg.lstsq(
            np.concatenate([rows, steep]), np.concatenate([tracked[inside], np.zeros(len(steep))]), rcond=None
        )
        moved = np.clip(expected, tracked[inside] - resolution._MOST, tracked[inside] + resolution._MOST)
        np.testing.assert_allclose(found[inside], moved, atol=2e-5)  # but for the ridge
    np.testing.assert_allclose(found[20], (found[19] + found[21]) / 2)
    np.testing.assert_allclose(found[[7, 8]], found[6] + (found[9] - found[6]) * np.array([1, 2]) / 3)
    assert found[0] == found[1]


@pytest.mark.parametrize("frames", [1, 2, 3, 40])
def test_a_constant_stays_and_so_does_what_is_not_voiced(frames):
    energy = contours(frames)[1]
    level = np.full(frames, math.log(130.0))
    found = resolved(pitch_of(level), mel_of(energy), AUDIO)
    torch.testing.assert_close(found.f0, torch.full((1, frames), 130.0).double())
    silent = pitch_of(level, np.zeros(frames))
    assert torch.equal(resolved(silent, mel_of(energy), AUDIO).f0, silent.f0)


def test_rows_are_on_their_own_and_only_the_trackers_band_counts():
    tracked, energy = contours(20)
    mel = mel_of(energy)
    alone = resolved(pitch_of(tracked), mel, AUDIO).f0
    louder = mel.clone()
    basis = LogMel(AUDIO).basis
    frequency = torch.arange(basis.shape[1]) * AUDIO.sample_rate / AUDIO.n_fft
    outside = (basis * ((frequency >= BAND[0]) & (frequency <= BAND[1]))).sum(1) == 0
    assert 5 < int(outside.sum()) < AUDIO.n_mels
    louder[:, outside] += torch.randn(1, int(outside.sum()), 20)
    both = Pitch(torch.cat([pitch_of(tracked).f0, 2 * alone]), torch.ones(2, 20))
    found = resolved(both, torch.cat([louder, mel]), AUDIO).f0
    torch.testing.assert_close(found[:1], alone)
    assert not torch.allclose(found[1:], 2 * alone)
    above = dataclasses.replace(AUDIO, f_min=1500.0)  # no band in the tracker's: all count
    assert bool(resolved(pitch_of(tracked), mel, above).f0.isfinite().all())


def test_it_stays_within_the_trackers_range_and_bears_any_mel():
    """F0 at the ends of the range; levels that overflow as powers, and none at all; a batch without frames."""
    tracked, energy = contours(40)
    for low, high in ((41.0, 60.0), (420.0, 499.0)):
        spread = (tracked - tracked.min()) / (tracked.max() - tracked.min())
        found = resolved(pitch_of(np.log(low) + spread * np.log(high / low)), mel_of(energy), AUDIO).f0
        assert bool((found >= F_MIN).all() and (found <= F_MAX).all())
    plain = resolved(pitch_of(tracked), mel_of(energy), AUDIO).f0
    torch.testing.assert_close(resolved(pitch_of(tracked), mel_of(energy) + 500, AUDIO).f0, plain)
    even = resolved(pitch_of(tracked), mel_of(np.ones(40)), AUDIO).f0
    for level in (-math.inf, -1e4, math.nan):
        silent = resolved(pitch_of(tracked), torch.full((1, AUDIO.n_mels, 40), level).double(), AUDIO).f0
        torch.testing.assert_close(silent, even)
    dead = mel_of(energy).clone()
    dead[:, :, 10:20] = -math.inf  # frames without energy inside a stretch stay near what was tracked
    found = resolved(pitch_of(tracked), dead, AUDIO).f0[0].log().numpy()
    assert np.abs(found - tracked)[12:18].max() < 0.05
    nothing = Pitch(torch.zeros(2, 0), torch.zeros(2, 0))
    assert resolved(nothing, torch.zeros(2, AUDIO.n_mels, 0), AUDIO).f0.shape == (2, 0)


def test_nothing_moves_by_more_than_five_semitones():
    tracked, energy = contours(40)
    tracked += np.random.default_rng(1).uniform(-0.15, 0.15, 40)
    found = resolved(pitch_of(tracked), mel_of(energy), AUDIO).f0[0].log().numpy()
    moved = np.abs(found - tracked)
    assert moved.max() == pytest.approx(resolution._MOST)


def test_a_voice_that_follows_it_is_tracked_as_it_was():
    """A voice that sets in with a glide, tracked; voices made from what was tracked, and from that resolved."""
    generator = torch.Generator().manual_seed(0)
    frames, on = 400, 25
    beat = torch.arange(frames) % 40
    voiced = (beat < on).float()
    level = torch.where(beat < on, torch.linspace(-1.5, 0, on + 1)[beat.clamp(max=on)].exp(), 0.0)
    level[beat == 0] *= 2
    glide = 0.25 * torch.exp(-beat / 1.5) * torch.repeat_interleave(torch.randn(10, generator=generator), 40)
    true = Pitch((math.log(160) + glide).exp()[None], voiced[None])

    def voice(pitch):
        cycles, amplitude = phase(pitch, AUDIO), torch.repeat_interleave(level, AUDIO.hop_length)
        harmonics = sum(torch.cos(2 * math.pi * k * cycles[0]) / k for k in range(1, 13))
        return 0.1 * amplitude * harmonics + 1e-4 * torch.randn(len(amplitude), generator=generator)

    wav = voice(true)
    heard = track(wav, AUDIO.sample_rate, AUDIO.hop_length)
    plain = filled(heard)
    sharper = resolved(plain, LogMel(AUDIO)(wav[None]), AUDIO)

    def error(pitch):
        again = track(voice(pitch), AUDIO.sample_rate, AUDIO.hop_length)
        both = again.voiced & heard.voiced
        return 1200 * np.sqrt(np.mean(np.log2(again.f0[both] / heard.f0[both]) ** 2))

    assert heard.voiced.mean() > 0.5
    assert error(sharper) < 0.75 * error(plain)
