"""Mels standardised per band: the input of every network that reads a mel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wavenet.errors import UserError


class MelInput(nn.Module):
    """A network that takes mel (B, M, F) and brings the training corpus's mean and deviation of each band along."""

    mean: Tensor
    std: Tensor

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.register_buffer("mean", torch.zeros(n_mels))
        self.register_buffer("std", torch.ones(n_mels))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Standardise each mel band with mean (M,) and std (M,) of the training corpus [nats]."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def standardised(self, mel: Tensor) -> Tensor:
        """(B, M, F) with mean 0 and variance 1 in each band of the training corpus. UserError for another shape."""
        if mel.dim() != 3 or mel.shape[1] != self.n_mels or mel.shape[2] == 0:
            raise UserError(f"mel: found shape {tuple(mel.shape)}, expected (B, {self.n_mels}, F) with F > 0")
        return (mel - self.mean[:, None]) / self.std[:, None]
