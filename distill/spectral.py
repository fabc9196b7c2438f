"""Multi-resolution STFT loss, frame by frame: what keeps a student from whispering, which reverse KL tolerates.

Spectral convergence and log magnitude (Arik et al. 2018, arXiv 1808.06719; Yamamoto et al. 2020, arXiv 1910.11480), on
emphasised speech of unit rms, so that every band and every recording level weigh alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

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
