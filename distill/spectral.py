"""Spectral losses between sample and recording: what keeps a student from whispering, which reverse KL tolerates.

Frame by frame at several resolutions: spectral convergence and log magnitude (Arik et al. 2018, arXiv 1808.06719;
Yamamoto et al. 2020, arXiv 1910.11480). And Parallel WaveNet's own power loss (arXiv 1711.10433), averaged over time
first. Both on emphasised speech of unit rms, so that every recording level weighs alike. And the log-mel distance of
HiFi-GAN (arXiv 2010.05646), on plain audio as the networks' conditioning is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wavenet.features import LogMel

# Power of a magnitude that counts as silence, relative to windowed speech of unit rms.
_POWER_FLOOR = 1e-5


def magnitude(signal: Tensor, size: int) -> Tensor:
    """|STFT| (B, size / 2 + 1, frames) of (B, T): Hann window of `size`, hop size / 4, frames inside the signal only.

    The floor inside the root keeps the gradient finite where a bin is empty.
    """
    window = torch.hann_window(size, dtype=signal.dtype, device=signal.device)
    spectrum = torch.stft(signal, size, size // 4, window=window, center=False, return_complex=True)
    return torch.sqrt(spectrum.real**2 + spectrum.imag**2 + _POWER_FLOOR * size)


def stft_terms(signal: Tensor, reference: Tensor, sizes: Sequence[int]) -> dict[str, Tensor]:
    """Distance of signal (B, T) from reference (B, T) at each window size: {"stft/512": scalar, ...}.

    Each is || |R| - |S| ||_F / || |R| ||_F + mean |log |S| - log |R||. Their mean is the term `stft` of the objective.
    """
    terms = {}
    for size in sizes:
        ours, theirs = magnitude(signal, size), magnitude(reference, size)
        convergence = torch.linalg.norm(theirs - ours) / torch.linalg.norm(theirs)
        terms[f"stft/{size}"] = convergence + (torch.log(ours) - torch.log(theirs)).abs().mean()
    return terms


def mel_distance(signal: Tensor, reference: Tensor, log_mel: LogMel) -> Tensor:
    """Mean |log-mel difference| [nats] of signal (B, T) from reference (B, T), frames inside the signal only: a scalar.

    A band averages many bins: levels are compared without the scatter of single bins, where noise meets other noise.
    """
    return (log_mel.of_padded(signal) - log_mel.of_padded(reference)).abs().mean()


def mean_power(signal: Tensor, size: int) -> Tensor:
    r"""phi(x) = |STFT(x)|^2 averaged over time, (B, size / 2 + 1) of (B, T), divided by sum_n w_n^2.

    With that division white noise of unit variance has phi = 1 in every bin, whatever the window's size.
    """
    window = torch.hann_window(size, dtype=signal.dtype, device=signal.device)
    spectrum = torch.stft(signal, size, size // 4, window=window, center=False, return_complex=True)
    return (spectrum.real**2 + spectrum.imag**2).mean(2) / window.square().sum()


def power_loss(signal: Tensor, reference: Tensor, size: int) -> Tensor:
    r"""|| phi(x) - phi(y) ||^2 of (B, T) and (B, T), a scalar: the mean over batch and bins.

    Power loss of van den Oord et al. 2017, arXiv 1711.10433, as printed: linear powers, averaged over time BEFORE the
    distance. When a frame sounds is not seen at all; `stft_terms` sees it.
    """
    return (mean_power(signal, size) - mean_power(reference, size)).square().mean()
