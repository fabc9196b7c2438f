"""LogMel against an independent computation, and the rule that ties frames to samples."""

import librosa
import numpy as np
import pytest
import torch

from wavenet.config import AudioConfig
from wavenet.errors import UserError
from wavenet.features import LogMel, librosa_basis, mel_basis

CONFIGS = {
    "hifi-gan": AudioConfig(),
    "8 kHz": AudioConfig(8000, 256, 256, 64, 40, 0.0, 4000.0),
    "short window": AudioConfig(16000, 512, 400, 160, 30, 50.0, 7600.0),
}


def _speech_like(length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(length, dtype=torch.float64)
    tone = sum(torch.sin(0.05 * k * time) / k for k in range(1, 20))
    loud = (torch.sin(time / 2000) > 0).double()
    return 0.2 * loud * tone + 1e-3 * torch.randn(length, generator=generator, dtype=torch.float64)


def _reference(wav: np.ndarray, audio: AudioConfig) -> np.ndarray:
    """HiFi-GAN's mel in numpy float64: reflect, frame, magnitude with its offset, Slaney filters, clamp, log."""
    margin = (audio.n_fft - audio.hop_length) // 2
    padded = np.pad(wav, margin, mode="reflect")
    spectrum = librosa.stft(
        padded, n_fft=audio.n_fft, hop_length=audio.hop_length, win_length=audio.win_length, window="hann", center=False
    )
    filters = librosa.filters.mel(
        sr=audio.sample_rate,
        n_fft=audio.n_fft,
        n_mels=audio.n_mels,
        fmin=audio.f_min,
        fmax=audio.f_max,
        htk=False,
        norm="slaney",
        dtype=np.float64,
    )
    return np.log(np.maximum(filters @ np.sqrt(np.abs(spectrum) ** 2 + 1e-9), audio.log_clamp))


@pytest.mark.parametrize("audio", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_an_independent_mel(audio, dtype):
    wav = _speech_like(40 * audio.hop_length)
    mel = LogMel(audio).to(dtype)(wav[None].to(dtype))
    assert mel.dtype == dtype
    expected = _reference(wav.numpy(), audio)
    assert expected.shape == (audio.n_mels, 40)
    np.testing.assert_allclose(mel[0].double().numpy(), expected, atol=1e-3, rtol=0)


def test_silence_is_at_the_clamp_with_a_finite_gradient():
    audio = AudioConfig()
    wav = torch.zeros(1, 8 * audio.hop_length, requires_grad=True)
    mel = LogMel(audio)(wav)
    floor = max(audio.log_clamp, float(mel_basis(audio).sum(1).min()) * 1e-9**0.5)
    assert mel.min().item() == pytest.approx(np.log(floor), abs=1e-4)
    mel.sum().backward()
    assert torch.isfinite(wav.grad).all()


@pytest.mark.parametrize("audio", CONFIGS.values(), ids=CONFIGS)
def test_a_frame_sees_the_window_centred_on_its_samples_and_no_other(audio):
    wav = _speech_like(30 * audio.hop_length)[None].requires_grad_()
    frame = 14
    mel = LogMel(audio).double()(wav)
    (grad,) = torch.autograd.grad(mel[0, :, frame].sum(), wav)
    seen = grad[0].nonzero().flatten()
    first = frame * audio.hop_length - (audio.n_fft - audio.hop_length) // 2
    edge = (audio.n_fft - audio.win_length) // 2
    # A periodic Hann window is 0 at its first sample.
    assert (seen.min(), seen.max()) == (first + edge + 1, first + edge + audio.win_length - 1)
    centre = first + audio.n_fft / 2
    assert centre == (frame + 0.5) * audio.hop_length


def test_margins_brought_along_give_the_same_frames():
    audio = AudioConfig()
    log_mel = LogMel(audio).double()
    wav = _speech_like(30 * audio.hop_length)[None]
    first, last = 10 * audio.hop_length, 17 * audio.hop_length
    stretch = wav[:, first - log_mel.margin : last + log_mel.margin]
    torch.testing.assert_close(log_mel.of_padded(stretch), log_mel(wav)[:, :, 10:17], atol=1e-12, rtol=0)


@pytest.mark.parametrize("length", [1000, 1023, 257])
def test_lengths_off_the_grid_are_refused(length):
    with pytest.raises(UserError, match=f"found {length} samples, expected a multiple of hop_length = 256"):
        LogMel(AudioConfig())(torch.zeros(1, length))


def test_recordings_too_short_to_reflect_are_refused():
    audio = AudioConfig()
    assert LogMel.shortest(audio) == 512
    with pytest.raises(UserError, match="found 256 samples, expected more than"):
        LogMel(audio)(torch.zeros(1, 256))
    assert LogMel(audio)(torch.zeros(1, 512)).shape == (1, 80, 2)


@pytest.mark.parametrize("audio", CONFIGS.values(), ids=CONFIGS)
def test_both_sources_of_the_filters_agree(audio, monkeypatch):
    here = mel_basis(audio)
    other = librosa_basis(audio)
    torch.testing.assert_close(here, other, atol=1e-5 * float(other.max()), rtol=0)
    monkeypatch.setitem(__import__("sys").modules, "torchaudio.functional", None)
    assert torch.equal(mel_basis(audio), other)


def test_precision_is_the_buffers_also_under_autocast():
    audio = AudioConfig()
    wav = _speech_like(8 * audio.hop_length)[None].float()
    log_mel = LogMel(audio)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(log_mel(wav), log_mel(wav.clone()))
        inside = log_mel(wav)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, log_mel(wav))
    assert log_mel.state_dict() == {}
