"""Metrics on degradations of known size, and the baselines that need no training."""

import math
import sys

import numpy as np
import pytest
import torch

from distill.baselines import griffin_lim, linear_magnitude, mel_shaped_noise
from distill.metrics import (
    METRICS,
    band_levels,
    choose,
    measure,
    mel_distance,
    stft_distance,
    voiced_autocorrelation,
)
from wavenet.audio import resample
from wavenet.config import AudioConfig
from wavenet.data import load_clip, open_corpus
from wavenet.errors import UserError
from wavenet.features import LogMel, mel_basis
from wavenet.pitch.tracker import track

AUDIO = AudioConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=40, f_max=4000.0)


@pytest.fixture(scope="module")
def speech():
    return load_clip(open_corpus("bundled", AUDIO).test[0], AUDIO)


def tone(pitch, seconds=1.0):
    """Ten harmonics of a steady pitch [Hz]."""
    time = torch.arange(int(seconds * AUDIO.sample_rate) // 64 * 64) / AUDIO.sample_rate
    return 0.02 * sum(torch.cos(2 * math.pi * k * pitch * time + k * k) for k in range(1, 11))


def level(wav):
    return 20 * math.log10(float(wav.square().mean().sqrt()))


def test_recording_against_itself(speech):
    found = measure(speech, speech, AUDIO)
    assert list(found) == choose("fast", AUDIO)[0]
    assert found["mcd"] == found["band_error"] == 0
    assert found["mel_distance"] == found["stft_distance"] == found["f0_rmse_cents"] == found["voicing_error"] == 0
    assert found["f0_within_3_percent"] == 1
    assert 0.8 < found["voiced_autocorrelation"] <= 1


def test_gain_is_its_logarithm():
    wav = 0.1 * torch.randn(6400, generator=torch.Generator().manual_seed(0))
    assert mel_distance(wav * 1.5, wav, AUDIO) == pytest.approx(math.log(1.5), abs=1e-3)
    assert mel_distance(wav * 0.7, wav, AUDIO) == pytest.approx(-math.log(0.7), abs=1e-3)
    # Spectral convergence |g - 1| plus log magnitude |log g|.
    assert stft_distance(wav * 1.5, wav, 8000) == pytest.approx(0.5 + math.log(1.5), abs=1e-3)


def test_what_a_gain_changes(speech):
    """Half the level: spectra and the noise floor say so, envelope, pitch, voicing and intelligibility do not."""
    same, half = (measure(gain * speech, speech, AUDIO) for gain in (1.0, 0.5))
    for name in ("mcd", "f0_rmse_cents", "voicing_error", "f0_within_3_percent", "voiced_autocorrelation", "stoi"):
        if name in same:
            assert half[name] == pytest.approx(same[name], abs=0.02), name
    assert half["mel_distance"] == pytest.approx(math.log(2), abs=0.01)
    assert half["stft_distance"] == pytest.approx(0.5 + math.log(2), abs=0.1)  # silence lies at the floor
    assert half["band_error"] == pytest.approx(6.0206, abs=1e-3)
    assert half["noise_floor"] == pytest.approx(same["noise_floor"] - 6.0206, abs=1e-3)


def test_stft_distance_is_auralosss(speech):
    """The same formula in another library, on the same windows; only the padding at the two ends differs."""
    auraloss = pytest.importorskip("auraloss")
    noise = torch.randn(len(speech), generator=torch.Generator().manual_seed(0))
    reference = speech + 0.01 * noise
    wav = 0.8 * reference + 0.01 * noise.flip(0)
    sizes = [400, 200, 80]
    other = auraloss.freq.MultiResolutionSTFTLoss(sizes, [size // 4 for size in sizes], sizes)
    expected = float(other(wav[None, None], reference[None, None]))
    assert stft_distance(wav, reference, 8000) == pytest.approx(expected, rel=0.02)


def test_bands_are_levels_in_db(speech):
    quieter = 0.5 * speech
    np.testing.assert_allclose(band_levels(quieter, speech, 8000), -6.0206, atol=1e-3)
    time = torch.arange(8000) / 8000
    low, high = torch.cos(2 * math.pi * 300 * time), torch.cos(2 * math.pi * 3000 * time)
    found = band_levels(low + 2 * high, low + high, 8000)
    assert found.shape == (4,)
    np.testing.assert_allclose(found[[0, 3]], [0, 6.0206], atol=1e-3)


def test_more_noise_is_worse(speech):
    noise = torch.randn(len(speech), generator=torch.Generator().manual_seed(0)) * speech.std()
    found = [measure(speech + noise * 10 ** (-snr / 20), speech, AUDIO) for snr in (40, 20, 10, 0)]
    for name in ("mel_distance", "stft_distance", "mcd", "voiced_autocorrelation", "band_error", "noise_floor"):
        aim = measure(speech, speech, AUDIO)[name] if METRICS[name].better == "nearest" else 0.0
        values = [abs(row[name] - aim) for row in found]
        assert values == sorted(values, reverse=METRICS[name].better == "higher"), name
        assert values[0] != values[-1]
    assert found[0]["f0_within_3_percent"] > 0.95 > found[-1]["f0_within_3_percent"]


@pytest.mark.parametrize("cents", [-40.0, 20.0, 100.0])
def test_pitch_shift_is_recovered(cents):
    found = measure(tone(150 * 2 ** (cents / 1200)), tone(150), AUDIO)
    assert found["f0_rmse_cents"] == pytest.approx(abs(cents), abs=2)
    within = abs(2 ** (cents / 1200) - 1) <= 0.03
    assert found["f0_within_3_percent"] == pytest.approx(float(within), abs=0.05)


@pytest.mark.parametrize("rate", [7600, 8240])
def test_a_resampled_vowel_is_off_by_the_resampling(rate):
    """Pulses of 120 Hz through three formants, resampled and played at the old rate: 1200 log2(8000 / rate) cents."""
    from scipy.signal import lfilter

    vowel = np.zeros(16000)
    vowel[np.arange(0, 16000, 8000 / 120).astype(int)] = 1.0
    for formant, width in ((700, 80), (1200, 90), (2500, 120)):
        radius = math.exp(-math.pi * width / 8000)
        vowel = lfilter([1.0], [1.0, -2 * radius * math.cos(2 * math.pi * formant / 8000), radius**2], vowel)
    vowel = torch.from_numpy(0.1 * vowel / np.abs(vowel).max()).float()
    shifted = resample(vowel, 8000, rate)
    length = 64 * 200
    found = measure(shifted[:length], vowel[:length], AUDIO, ["f0_rmse_cents", "voicing_error"])
    assert found["f0_rmse_cents"] == pytest.approx(1200 * abs(math.log2(8000 / rate)), abs=5)
    assert found["voicing_error"] < 0.02


def test_dropped_frames_are_voicing_errors():
    reference = tone(150, 2.0)
    dropped = reference.clone()
    dropped[4000:8000] = 0
    found = measure(dropped, reference, AUDIO)
    assert found["voicing_error"] == pytest.approx(4000 / len(reference), abs=0.02)
    assert found["f0_within_3_percent"] == pytest.approx(1 - 4000 / len(reference), abs=0.02)
    assert found["f0_rmse_cents"] < 5


def test_periodicity_follows_the_noise_share():
    """A periodic signal with power P and noise of power N has autocorrelation P / (P + N) at its period."""
    wav = tone(160, 2.0)
    noise = torch.randn(len(wav), generator=torch.Generator().manual_seed(0)) * wav.std()
    reference = track(wav, 8000, 64)
    for ratio in (0.1, 0.5, 1.0):
        found = voiced_autocorrelation(wav + ratio**0.5 * noise, reference, AUDIO)
        assert found == pytest.approx(1 / (1 + ratio), abs=0.06)


def test_nothing_voiced_is_not_a_number():
    noise = 0.1 * torch.randn(6400, generator=torch.Generator().manual_seed(0))
    found = measure(noise, noise, AUDIO)
    assert all(math.isnan(found[name]) for name in ("f0_rmse_cents", "f0_within_3_percent", "voiced_autocorrelation"))


def test_what_can_be_measured_depends_on_rate_and_texts():
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("jiwer")
    fast, _ = choose("fast", AudioConfig())
    every, _ = choose("all", AudioConfig())
    assert "wer" in every
    assert not any(METRICS[name].slow for name in fast)
    assert set(fast) <= set(every) <= set(METRICS)
    slow, why = choose("all", AUDIO)
    assert not {"pesq", "wer", "wer_gap"} & set(slow)
    assert "left out: PESQ, WER, WER gap (8000 Hz, it needs 16000)" in why
    mute, why = choose("all", AudioConfig(), texts=False)
    assert set(every) - set(mute) == {"wer", "wer_gap"}
    assert any("no clip has a text" in line for line in why)
    with pytest.raises(UserError, match="metrics: found 'some', expected one of fast, all"):
        choose("some", AUDIO)


@pytest.mark.parametrize(
    ("module", "package", "extra", "lost"),
    [
        ("pystoi", "pystoi", "eval", {"stoi"}),
        ("pesq", "pesq", "pesq", {"pesq"}),
        ("speechmos.dnsmos", "speechmos", "eval", {"dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak"}),
        ("jiwer", "jiwer", "eval", {"wer", "wer_gap"}),
        ("pocketsphinx", "pocketsphinx", "eval", {"wer", "wer_gap"}),
    ],
)
def test_a_missing_package_is_named_and_its_columns_left_out(monkeypatch, module, package, extra, lost):
    before, _ = choose("all", AudioConfig())
    monkeypatch.setitem(sys.modules, module, None)
    names, why = choose("all", AudioConfig())
    assert set(before) - set(names) == lost & set(before)
    (line,) = [line for line in why if f"no package {package}:" in line]
    assert f"[{extra}]" in line
    wav = 0.1 * torch.randn(256 * 20, generator=torch.Generator().manual_seed(0))
    fast = [name for name in names if not METRICS[name].slow]
    assert set(measure(wav, wav, AudioConfig(), fast)) == set(fast)


def test_lengths(speech):
    assert measure(speech[:-64], speech, AUDIO)["mel_distance"] < 1e-2
    with pytest.raises(UserError, match="within one hop of 64"):
        measure(speech[:-65], speech, AUDIO)
    with pytest.raises(UserError, match=r"wav: found shape \(1, "):
        measure(speech[None], speech, AUDIO)


def test_linear_magnitude_has_the_given_mel(speech):
    mel = LogMel(AUDIO)(speech[None])[0]
    magnitude = linear_magnitude(mel, AUDIO)
    assert (magnitude >= 0).all()
    assert float(((mel_basis(AUDIO) @ magnitude).log() - mel).abs().mean()) < 0.01


@pytest.mark.parametrize("audio", [AUDIO, AudioConfig()])
def test_griffin_lim_is_near_in_mel_and_level(audio):
    wav = load_clip(open_corpus("bundled", audio).test[1], audio)
    mel = LogMel(audio)(wav[None])[0]
    built = griffin_lim(mel, audio)
    assert built.shape == wav.shape
    assert level(built) == pytest.approx(level(wav), abs=1)
    assert mel_distance(built, wav, audio) < 0.15
    assert mel_distance(built, wav, audio) < 0.8 * mel_distance(griffin_lim(mel, audio, iterations=5), wav, audio)


@pytest.mark.parametrize("audio", [AUDIO, AudioConfig()])
def test_mel_shaped_noise_has_envelope_and_level_but_no_pitch(audio):
    wav = load_clip(open_corpus("bundled", audio).test[1], audio)
    log_mel = LogMel(audio)
    mel = log_mel(wav[None])[0]
    noise = mel_shaped_noise(mel, audio, torch.Generator().manual_seed(0))
    assert noise.shape == wav.shape
    assert level(noise) == pytest.approx(level(wav), abs=1)
    bands = np.corrcoef(log_mel(noise[None])[0].flatten(), mel.flatten())[0, 1]
    assert bands > 0.95
    reference = track(wav, audio.sample_rate, audio.hop_length)
    recording = voiced_autocorrelation(wav, reference, audio)
    assert voiced_autocorrelation(noise, reference, audio) < recording - 0.1


def test_mel_shaped_noise_is_a_function_of_its_generator(speech):
    mel = LogMel(AUDIO)(speech[None])[0]
    one, again, other = (mel_shaped_noise(mel, AUDIO, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
