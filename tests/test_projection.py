"""Projection: a signal's mel comes near the given one, by the steps that are stated; what has the mel stays."""

import dataclasses

import numpy as np
import pytest
import torch

from distill import projection
from distill.baselines import mel_shaped_noise
from distill.framing import Framing
from distill.metrics import stft_distance
from distill.projection import possible, project
from tests.conftest import AUDIO, random_wav
from wavenet.config import AudioConfig
from wavenet.data import load_clip, open_corpus
from wavenet.errors import UserError
from wavenet.features import LogMel, mel_basis

HIFI = AudioConfig()
NARROW = AudioConfig(sample_rate=8000, n_fft=256, win_length=200, hop_length=64, n_mels=40, f_max=4000.0)
SHORT = AudioConfig(sample_rate=8000, n_fft=256, win_length=96, hop_length=64, n_mels=40, f_max=4000.0)
LAYOUTS = pytest.mark.parametrize("audio", [HIFI, NARROW, SHORT], ids=["22.05 kHz", "window below n_fft", "short"])


@pytest.fixture(scope="module")
def speech():
    """A held-out clip (1, T) and its mel, for any layout."""

    def of(audio: AudioConfig) -> tuple[torch.Tensor, torch.Tensor]:
        wav = load_clip(open_corpus("bundled", audio).test[0], audio)[None]
        wav = wav[:, : 100 * audio.hop_length]
        return wav, LogMel(audio)(wav)

    return of


def far(wav: torch.Tensor, mel: torch.Tensor, audio: AudioConfig) -> float:
    return float((LogMel(audio)(wav) - mel).abs().mean())


@LAYOUTS
def test_more_steps_bring_the_mel_nearer(speech, audio):
    _, mel = speech(audio)
    noise = mel_shaped_noise(mel[0], audio, torch.Generator().manual_seed(0))[None]
    distances = [far(project(noise, mel, audio, steps), mel, audio) for steps in (0, 1, 2, 4, 8, 16, 32)]
    assert sorted(distances, reverse=True) == distances
    assert distances[0] > 0.3
    assert distances[-1] < 0.12


@LAYOUTS
def test_what_has_the_mel_stays(speech, audio):
    wav, mel = speech(audio)
    torch.testing.assert_close(project(wav, mel, audio, 8), wav, rtol=0, atol=2e-4)


@LAYOUTS
def test_a_wrong_level_and_a_wrong_colour_are_put_right(speech, audio):
    """Right in phase and wrong in a smooth gain: the recording itself comes back, not just something of its mel."""
    wav, mel = speech(audio)
    soft = torch.fft.irfft(torch.fft.rfft(wav) * torch.linspace(0.8, 0.3, wav.shape[1] // 2 + 1), wav.shape[1])
    back = project(soft, mel, audio, 16)
    assert stft_distance(soft[0], wav[0], audio.sample_rate) > 0.5
    assert float((back - wav).square().sum() / wav.square().sum()) < 3e-3
    assert float((soft - wav).square().sum() / wav.square().sum()) > 0.05


def one_step(wav: np.ndarray, mel: np.ndarray) -> np.ndarray:
    """Of wav (T,) without momentum: frame by frame, with a matrix of the least squares instead of overlap and add."""
    n_fft, hop, frames = AUDIO.n_fft, AUDIO.hop_length, mel.shape[1]
    margin, basis = (n_fft - hop) // 2, mel_basis(AUDIO).double().numpy()
    padded = np.pad(wav, margin, mode="reflect")
    window = torch.hann_window(n_fft).double().numpy()
    made, rows = [], []
    for i in range(frames):
        spectrum = np.fft.rfft(window * padded[i * hop : i * hop + n_fft])
        found = np.log(np.maximum(basis @ np.abs(spectrum), AUDIO.log_clamp))
        off = np.clip(mel[:, i] - found, -2, 2)
        inside = basis.sum(0) > 0
        gain = np.where(inside, (basis.T @ off) / np.where(inside, basis.sum(0), 1), 0.0)
        made.append(np.fft.irfft(spectrum * np.exp(gain), n_fft))
        row = np.zeros((n_fft, len(padded)))
        row[np.arange(n_fft), i * hop + np.arange(n_fft)] = window
        rows.append(row)
    return np.linalg.lstsq(np.concatenate(rows), np.concatenate(made), rcond=None)[0][margin:-margin]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_steps_are_the_equation(steps):
    wav, mel = random_wav(1, 12).float(), LogMel(AUDIO)(random_wav(1, 12, seed=1).float())
    x = ahead = wav[0].double().numpy()
    for step in range(steps):
        x, before = one_step(ahead, mel[0].double().numpy()), x
        ahead = x + (0.9 * (x - before) if step > 0 else 0)
    found = project(wav, mel, AUDIO, steps)[0].double().numpy()
    assert np.abs(found - x).max() < 1e-5 * np.abs(x).max()


@LAYOUTS
def test_many_steps_do_not_diverge(speech, audio):
    _, mel = speech(audio)
    noise = 0.05 * torch.randn(1, mel.shape[2] * audio.hop_length, generator=torch.Generator().manual_seed(0))
    assert far(project(noise, mel, audio, 200), mel, audio) < 0.02


def test_momentum_is_worth_several_times_the_steps(speech, monkeypatch):
    _, mel = speech(HIFI)
    noise = mel_shaped_noise(mel[0], HIFI, torch.Generator().manual_seed(0))[None]
    found = far(project(noise, mel, HIFI, 32), mel, HIFI)
    monkeypatch.setattr(projection, "_MOMENTUM", 0.0)
    assert found < far(project(noise, mel, HIFI, 96), mel, HIFI)


@pytest.mark.parametrize("hop", [64, 100, 200])
def test_overlap_and_add_is_the_adjoint_of_framing(hop):
    """<frames(x), y> = <x, added(y)>, also where a hop does not divide n_fft."""
    audio = dataclasses.replace(NARROW, hop_length=hop)
    framing = Framing(audio, 9)
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(2, framing.padded, generator=generator, dtype=torch.float64)
    frames = torch.randn(2, 9, audio.n_fft, generator=generator, dtype=torch.float64)
    left = (signal.unfold(1, audio.n_fft, hop) * frames).sum()
    torch.testing.assert_close((signal * framing._overlap_add(frames)).sum(), left)


@LAYOUTS
@pytest.mark.parametrize("level", [0.1, 3.0, 10.0])
def test_phases_stay_though_the_start_is_soft_or_loud(speech, audio, level):
    wav, mel = speech(audio)
    framing = Framing(audio, mel.shape[2])
    found, true = (framing.analyse(framing.pad(signal)) for signal in (project(level * wav, mel, audio), wav))
    energy, turned = found.abs().square(), (found * true.conj()).real < 0
    assert float((energy * turned).sum() / energy.sum()) < 1e-3
    assert far(project(level * wav, mel, audio), mel, audio) < 0.01


def test_what_no_band_hears_is_left_alone():
    time = torch.arange(60 * 256) / 22050
    low, high = torch.sin(2 * torch.pi * 440 * time)[None], 0.1 * torch.sin(2 * torch.pi * 10000 * time)[None]
    mel = LogMel(HIFI)(0.3 * low)
    found = project(0.1 * low + high, mel, HIFI, 16)[:, 4096:-4096]
    bins = torch.fft.rfft(found * torch.hann_window(found.shape[1])).abs()[0]
    hertz = torch.arange(len(bins)) * 22050 / found.shape[1]
    amplitude = [float(bins[(hertz - f).abs() < 50].max()) * 4 / found.shape[1] for f in (440, 10000)]
    assert amplitude[0] == pytest.approx(0.3, rel=0.1)
    assert amplitude[1] == pytest.approx(0.1, rel=0.05)


def test_chunks_and_batches_change_nothing(speech, monkeypatch):
    wav, mel = speech(NARROW)
    noise = 0.05 * torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))
    whole = project(noise, mel, NARROW, 3)
    both = project(torch.cat([wav, noise]), torch.cat([mel, mel]), NARROW, 3)
    torch.testing.assert_close(both[1:], whole, rtol=0, atol=1e-6)
    monkeypatch.setattr(projection, "_CHUNK", 17)
    torch.testing.assert_close(project(noise, mel, NARROW, 3), whole, rtol=0, atol=1e-6)


def test_no_steps_and_no_mel_leave_it_as_it_is():
    wav = random_wav(1, 4).float()
    mel = torch.zeros(1, AUDIO.n_mels, 4)
    assert torch.equal(project(wav, mel, AUDIO, 0), wav)
    assert (
        project(wav.double(), mel.double(), AUDIO, 0).dtype == project(wav.double(), mel, AUDIO, 1).dtype == wav.dtype
    )
    assert torch.equal(project(wav[:, :16], mel[:, :, :1], AUDIO, 16), wav[:, :16])  # shorter than the margin
    assert project(wav[:0], mel[:0], AUDIO).shape == (0, 64)


def test_mistakes_are_named():
    wav, mel = random_wav(1, 4).float(), torch.zeros(1, AUDIO.n_mels, 5)
    with pytest.raises(UserError, match=r"wav: found shape \(1, 64\), expected \(1, 80\), as the mel says"):
        project(wav, mel, AUDIO)
    with pytest.raises(UserError, match=r"steps: found -1, expected 0 or more"):
        project(wav, mel, AUDIO, -1)
    with pytest.raises(UserError, match=r"mel: found shape \(6, 5\), expected \(B, 6, F\)"):
        project(wav, mel[0], AUDIO)
    with pytest.raises(UserError, match=r"mel: found shape \(1, 5, 4\), expected \(B, 6, F\)"):
        project(wav, torch.zeros(1, 5, 4), AUDIO)
    apart = dataclasses.replace(AUDIO, win_length=AUDIO.hop_length)
    with pytest.raises(UserError, match=r"audio\.win_length: found 16, expected more than hop_length = 16"):
        project(wav, mel[:, :, :4], apart)
    assert possible(AUDIO)
    assert not possible(apart)


def test_a_target_below_the_clamp_asks_for_no_more_than_the_clamp():
    """A mel of another extractor, whose clamp is lower: what is under ours is as silent as ours can say."""
    wav = 1e-3 * random_wav(1, 30).float()
    low, clamped = (torch.full((1, AUDIO.n_mels, 30), value) for value in (-25.0, float(np.log(AUDIO.log_clamp))))
    assert torch.equal(project(wav, low, AUDIO, 16), project(wav, clamped, AUDIO, 16))
    assert float(project(wav, low, AUDIO, 16).abs().max()) > 0
