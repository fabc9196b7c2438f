"""The spectral losses: zero on identity, equal to independent implementations, and what each sees and does not."""

import auraloss
import numpy as np
import pytest
import torch

from distill.spectral import magnitude, mean_power, power_loss, stft_terms


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


@pytest.mark.parametrize("size", [64, 256])
def test_power_loss_against_its_definition(size):
    """|| phi(x) - phi(y) ||^2 with phi = |STFT|^2 averaged over time, by numpy's FFT frame by frame."""
    ours, theirs = speech_like(seed=1), 0.7 * speech_like(seed=2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)

    def phi(row):
        starts = range(0, len(row) - size + 1, size // 4)
        powers = [np.abs(np.fft.rfft(window * row[first : first + size])) ** 2 for first in starts]
        return np.mean(powers, axis=0) / np.sum(window**2)

    pairs = zip(ours.numpy(), theirs.numpy(), strict=True)
    expected = np.mean([np.sum((phi(x) - phi(y)) ** 2) / (size // 2 + 1) for x, y in pairs])
    assert float(power_loss(ours, theirs, size)) == pytest.approx(expected, rel=1e-10)
    assert float(power_loss(ours, ours, size)) == 0.0


def test_white_noise_of_unit_variance_has_power_one_in_every_bin():
    noise = torch.randn(4, 2**17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for size in (64, 512):
        inner = mean_power(noise, size)[:, 2:-2]  # at 0 and at half the rate a bin is real, of other variance
        assert float((inner.mean(0) - 1).abs().max()) < 0.1
        assert float(inner.mean()) == pytest.approx(1.0, abs=0.01)


def test_power_loss_is_blind_to_the_order_of_time_and_the_stft_loss_is_not():
    """Four sounds, a window of silence between them, in another order: the same frames."""
    size, hop = 128, 32
    sounds = [torch.randn(4 * hop, generator=torch.Generator().manual_seed(i)).double() * (i + 1) for i in range(4)]
    silence = torch.zeros(2 * size, dtype=torch.float64)

    def spoken(order):
        return torch.cat([silence, *(torch.cat([sounds[i], silence]) for i in order)])[None]

    one, two = spoken([0, 1, 2, 3]), spoken([2, 0, 3, 1])
    assert float(power_loss(one, two, size)) < 1e-20
    assert float(power_loss(one, 1.1 * one, size)) > 1e-3
    assert float(stft_terms(one, two, [size])["stft/128"]) > 0.5


def test_power_loss_has_the_right_gradient_also_in_silence():
    reference = speech_like(1, 256, seed=4)
    point = speech_like(1, 256, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: power_loss(x, reference, 64), (point,), atol=1e-6)
    silent = torch.zeros(1, 256, dtype=torch.float64, requires_grad=True)
    power_loss(silent, reference, 64).backward()
    assert torch.isfinite(silent.grad).all()
