"""Mel-cepstral distortion: closed forms for spectral tilts, nothing for a gain, more for worse sound."""

import math

import numpy as np
import pytest
import torch

from distill.cepstral import ORDER, mel_cepstral_distortion, mel_cepstrum

RATE = 16000


@pytest.fixture(scope="module")
def noise():
    return 0.1 * torch.randn(2 * RATE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def place():
    """Place on the mel scale of every frequency of two seconds, up to 8 kHz: (m + 1/2) / 80 at the middle of band m."""
    import librosa

    mels = librosa.hz_to_mel(np.fft.rfftfreq(2 * RATE, 1 / RATE))
    return torch.from_numpy((81 * mels / mels[-1] - 0.5) / 80)


def shaped(wav, log_gain):
    """wav with its spectrum's logarithm raised by log_gain [nats of amplitude]."""
    return torch.fft.irfft(torch.fft.rfft(wav) * log_gain.exp(), len(wav))


@pytest.mark.parametrize("order", [1, 5, 9])
def test_one_ripple_has_its_closed_form(noise, order):
    """a cos(pi d m) on the log amplitude moves c_d by a and no other: 10/log 10 sqrt(2) a dB."""
    ripple = 0.3 * torch.cos(math.pi * order * place())
    expected = 10 / math.log(10) * math.sqrt(2) * 0.3
    assert mel_cepstral_distortion(shaped(noise, ripple), noise, RATE) == pytest.approx(expected, rel=0.03)


def test_a_tilt_is_the_root_mean_square_of_its_decibels(noise):
    """20 dB along the mel scale: uniform around its mean, 20 / sqrt(12) dB, almost all of it within 24 coefficients."""
    tilt = math.log(10) * place()
    found = mel_cepstral_distortion(shaped(noise, tilt), noise, RATE)
    ramp = np.linspace(0, 20, 80, endpoint=False)
    from scipy.fft import dct

    kept = dct(ramp, norm="ortho")[1 : ORDER + 1]
    assert math.sqrt(np.square(kept).mean() * ORDER / 80) == pytest.approx(20 / math.sqrt(12), rel=0.01)
    assert found == pytest.approx(20 / math.sqrt(12), rel=0.03)


def test_ripples_beyond_the_order_are_not_seen(noise):
    ripple = 0.3 * torch.cos(math.pi * (ORDER + 10) * place())
    # Bands overlap, windows are wider than the lowest bands: a little of it leaks into lower coefficients.
    assert mel_cepstral_distortion(shaped(noise, ripple), noise, RATE) < 1.842 / 3


def test_gain_costs_nothing(noise):
    assert mel_cepstral_distortion(0.3 * noise, noise, RATE) < 1e-9
    assert mel_cepstral_distortion(noise, noise, RATE) == 0


def test_only_speech_counts(noise):
    """Frames 40 dB under the rest are silence: what a system does there is the noise floor's business."""
    speech = shaped(noise, -3 * place())
    quiet = torch.cat([speech, 0.01 * speech])
    broken = torch.cat([speech, 0.01 * noise])
    dropped = quiet.clone()
    dropped[4000:8000] = 0
    # The windows across the seam alone.
    assert mel_cepstral_distortion(broken, quiet, RATE) < 0.1
    assert mel_cepstral_distortion(dropped, quiet, RATE) > 0.5


def test_more_noise_is_worse(noise):
    tilted = shaped(noise, -3 * place())
    hiss = torch.randn(len(noise), generator=torch.Generator().manual_seed(1), dtype=torch.float64) * tilted.std()
    found = [mel_cepstral_distortion(tilted + hiss * 10 ** (-snr / 20), tilted, RATE) for snr in (40, 30, 20, 10)]
    assert found == sorted(found)
    assert found[-1] > 2 * found[0]


@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_other_rates(rate):
    wav = 0.1 * torch.randn(rate, generator=torch.Generator().manual_seed(0))
    assert np.isfinite(mel_cepstrum(wav, rate)).all()
    assert len(mel_cepstrum(wav, rate)) == pytest.approx(98, abs=1)
    assert math.isnan(mel_cepstral_distortion(wav[:10], wav[:10], rate))
