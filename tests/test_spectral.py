"""The STFT loss: zero on identity, equal to an independent implementation, and it sees what KL tolerates."""

import auraloss
import pytest
import torch

from distill.spectral import magnitude, stft_terms


def speech_like(batch: int = 2, length: int = 4096, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(length, dtype=torch.float64)
    harmonics = sum(torch.sin(2 * torch.pi * 0.013 * k * time) / k for k in range(1, 12))
    return harmonics + 0.1 * torch.randn(batch, length, generator=generator, dtype=torch.float64)


def test_identity_is_zero():
    signal = speech_like()
    assert all(float(term) == 0.0 for term in stft_terms(signal, signal, [512, 128]).values())


@pytest.mark.parametrize("size", [128, 512, 1024])
def test_magnitude_against_auraloss(size):
    """auraloss frames with reflected edges; inside the signal, the frames are the same."""
    signal = speech_like()
    theirs = auraloss.freq.STFTLoss(fft_size=size, hop_size=size // 4, win_length=size)
    theirs.window = theirs.window.double()
    padded_magnitude = theirs.stft(signal)[0]
    inner = padded_magnitude[:, :, 2 : 2 + magnitude(signal, size).shape[2]]
    assert float((magnitude(signal, size) - inner).abs().max()) < 0.01 * size**0.5


def test_spectral_convergence_against_its_definition():
    ours, theirs = speech_like(seed=1), speech_like(seed=2)
    a, b = magnitude(ours, 256), magnitude(theirs, 256)
    expected = ((b - a) ** 2).sum().sqrt() / (b**2).sum().sqrt() + (a.log() - b.log()).abs().sum() / a.numel()
    torch.testing.assert_close(stft_terms(ours, theirs, [256])["stft/256"], expected)


def test_whispering_is_heard():
    """Noise of the same power and no harmonics is much farther than another noise seed; a lower level is told too."""
    voiced, other = speech_like(seed=1), speech_like(seed=2)
    whisper = torch.randn(2, 4096, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * voiced.std()

    def distance(signal):
        return float(torch.stack(list(stft_terms(signal, voiced, [1024, 256]).values())).mean())

    assert distance(whisper) > 3 * distance(other)
    assert distance(voiced * 10 ** (-6 / 20)) == pytest.approx(0.5 + 0.69, abs=0.05)


def test_gradient_is_finite_in_silence_and_right():
    signal = torch.zeros(1, 512, dtype=torch.float64, requires_grad=True)
    sum(stft_terms(signal, speech_like(1, 512), [128]).values()).backward()
    assert torch.isfinite(signal.grad).all()
    point = speech_like(1, 256, seed=3).requires_grad_()
    reference = speech_like(1, 256, seed=4)
    assert torch.autograd.gradcheck(lambda x: stft_terms(x, reference, [64])["stft/64"], (point,), atol=1e-6)
