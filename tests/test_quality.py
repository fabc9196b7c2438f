"""STOI, PESQ and DNSMOS on degradations of known size. Each is skipped where its package is missing."""

import math

import pytest
import torch

from distill.quality import dnsmos, pesq_wideband, stoi
from wavenet.config import AudioConfig
from wavenet.data import load_clip, open_corpus

AUDIO = AudioConfig(sample_rate=16000, n_fft=512, win_length=512, hop_length=128, n_mels=40, f_max=8000.0)
RATE = 16000


@pytest.fixture(scope="module")
def speech():
    clips = open_corpus("bundled", AUDIO).test
    return load_clip(min(clips, key=lambda clip: clip.frames), AUDIO)


def noisy(wav, snr, seed=0):
    noise = torch.randn(len(wav), generator=torch.Generator().manual_seed(seed))
    return wav + noise * wav.std() * 10 ** (-snr / 20)


def test_stoi_falls_with_noise(speech):
    pytest.importorskip("pystoi")
    found = [stoi(noisy(speech, snr), speech, RATE) for snr in (40, 20, 10, 0, -10)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.99
    assert found[-1] < 0.6
    assert stoi(speech, speech, RATE) == pytest.approx(1, abs=1e-6)
    assert stoi(0.25 * speech, speech, RATE) == pytest.approx(1, abs=1e-6)


def test_stoi_is_not_a_number_without_speech(speech):
    pytest.importorskip("pystoi")
    assert math.isnan(stoi(speech[:4000], speech[:4000], RATE))
    assert stoi(torch.zeros_like(speech), speech, RATE) == pytest.approx(0, abs=1e-6)


def test_stoi_falls_with_dropped_words(speech):
    pytest.importorskip("pystoi")
    dropped = speech.clone()
    dropped[len(speech) // 3 : len(speech) // 2] = 0
    assert stoi(dropped, speech, RATE) < 0.95


def test_pesq_falls_with_noise(speech):
    pytest.importorskip("pesq")
    found = [pesq_wideband(noisy(speech, snr), speech, RATE) for snr in (40, 20, 0)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 3
    assert found[-1] < 1.2
    assert pesq_wideband(speech, speech, RATE) == pytest.approx(4.644, abs=1e-3)  # the top of P.862.2's mapping
    assert pesq_wideband(0.5 * speech, speech, RATE) == pytest.approx(4.644, abs=0.01)
    assert math.isnan(pesq_wideband(torch.zeros_like(speech), speech, RATE))
    assert math.isnan(pesq_wideband(speech[:1000], speech[:1000], RATE))


def test_dnsmos_falls_with_noise(speech):
    pytest.importorskip("speechmos.dnsmos")
    short = speech[: round(4.6 * RATE)]  # twice this fills one window of 9.01 s
    clean, dirty = dnsmos(short, RATE), dnsmos(noisy(short, 5), RATE)
    assert set(clean) == {"dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak"}
    assert clean["dnsmos_ovrl"] > 2.8
    assert dirty["dnsmos_ovrl"] < clean["dnsmos_ovrl"] - 0.8
    assert dirty["dnsmos_bak"] < clean["dnsmos_bak"] - 1


@pytest.mark.slow
def test_dnsmos_is_monotonic_and_depends_little_on_level(speech):
    pytest.importorskip("speechmos.dnsmos")
    found = [dnsmos(noisy(speech, snr), RATE) for snr in (40, 25, 10, 0)]
    for name in ("dnsmos_ovrl", "dnsmos_bak"):
        values = [row[name] for row in found]
        assert values == sorted(values, reverse=True), name
    gained = dnsmos(0.5 * speech, RATE)["dnsmos_ovrl"]
    assert gained == pytest.approx(dnsmos(speech, RATE)["dnsmos_ovrl"], abs=0.3)
    # Beyond full scale samples are clipped, as in a file, and not refused.
    assert math.isfinite(dnsmos(20 * speech, RATE)["dnsmos_ovrl"])
