"""Projection: a signal's mel comes near the given one, by the steps that are stated; what has the mel stays."""

import numpy as np
import pytest
import torch

from distill import projection
from distill.baselines import mel_shaped_noise
from distill.metrics import stft_distance
from distill.projection import project
from tests.conftest import AUDIO, random_wav
from wavenet.config import AudioConfig
from wavenet.data import load_clip, open_corpus
from wavenet.errors import UserError
from wavenet.features import LogMel, mel_basis

HIFI = AudioConfig()
NARROW = AudioConfig(sample_rate=8000, n_fft=256, win_length=200, hop_length=64, n_mels=40, f_max=4000.0)
LAYOUTS = pytest.mark.parametrize("audio", [HIFI, NARROW], ids=["22.05 kHz", "window below n_fft"])


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
def test_every_step_brings_the_mel_nearer(speech, audio):
    _, mel = speech(audio)
    noise = mel_shaped_noise(mel[0], audio, torch.Generator().manual_seed(0))[None]
    distances = [far(project(noise, mel, audio, steps), mel, audio) for steps in (0, 1, 2, 4, 8, 16)]
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


def test_a_step_is_the_equation():
    """Frame by frame in numpy, float64, with a matrix of the least squares instead of overlap and add."""
    wav, mel = random_wav(1, 12).float(), LogMel(AUDIO)(random_wav(1, 12, seed=1).float())
    n_fft, hop, frames = AUDIO.n_fft, AUDIO.hop_length, 12
    margin, basis = (n_fft - hop) // 2, mel_basis(AUDIO).double().numpy()
    padded = np.pad(wav[0].double().numpy(), margin, mode="reflect")
    window = torch.hann_window(n_fft).double().numpy()
    made, rows = [], []
    for i in range(frames):
        spectrum = np.fft.rfft(window * padded[i * hop : i * hop + n_fft])
        found = np.log(np.maximum(basis @ np.abs(spectrum), AUDIO.log_clamp))
        off = np.clip(mel[0, :, i].double().numpy() - found, -2, 2)
        inside = basis.sum(0) > 0
        gain = np.where(inside, (basis.T @ off) / np.where(inside, basis.sum(0), 1), 0.0)
        made.append(np.fft.irfft(spectrum * np.exp(gain), n_fft))
        row = np.zeros((n_fft, len(padded)))
        row[np.arange(n_fft), i * hop + np.arange(n_fft)] = window
        rows.append(row)
    nearest = np.linalg.lstsq(np.concatenate(rows), np.concatenate(made), rcond=None)[0]
    found = project(wav, mel, AUDIO, 1)[0].double().numpy()
    assert np.abs(found - nearest[margin:-margin]).max() < 1e-5 * np.abs(nearest).max()


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
    assert project(wav, mel, AUDIO, 0) is wav
    assert torch.equal(project(wav[:, :16], mel[:, :, :1], AUDIO, 16), wav[:, :16])  # shorter than the margin


def test_mistakes_are_named():
    wav, mel = random_wav(1, 4).float(), torch.zeros(1, AUDIO.n_mels, 5)
    with pytest.raises(UserError, match=r"wav: found shape \(1, 64\), expected \(1, 80\), as the mel says"):
        project(wav, mel, AUDIO)
    with pytest.raises(UserError, match="steps: found -1, expected 0 or more"):
        project(wav, mel, AUDIO, -1)
