"""The short-time Fourier transform on the frames of wavenet.features, and back to the nearest signal."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wavenet.config import AudioConfig


class Framing:
    """The framing of wavenet.features on padded signals: frame i is their samples [i hop, i hop + n_fft)."""

    def __init__(self, audio: AudioConfig, frames: int, device: torch.device | str = "cpu") -> None:
        self.audio, self.frames = audio, frames
        self.margin = (audio.n_fft - audio.hop_length) // 2
        self.padded = (frames - 1) * audio.hop_length + audio.n_fft
        side = audio.n_fft - audio.win_length
        self.window = F.pad(torch.hann_window(audio.win_length, device=device), (side // 2, side - side // 2))
        weight = self._overlap_add(self.window.square().repeat(frames, 1))
        self.weight = weight.clamp(min=1e-2 * float(weight.max()))  # smaller at the very ends alone, which are cut

    def analyse(self, padded: Tensor) -> Tensor:
        """(..., padded) -> complex (..., n_fft / 2 + 1, F)."""
        n_fft, hop = self.audio.n_fft, self.audio.hop_length
        return torch.stft(padded, n_fft, hop, window=self.window, center=False, return_complex=True)

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """The signal (..., padded) whose spectrum is nearest to `spectrum` (least squares)."""
        frames = torch.fft.irfft(spectrum.transpose(-1, -2), self.audio.n_fft) * self.window
        return self._overlap_add(frames) / self.weight

    def pad(self, wav: Tensor) -> Tensor:
        """With margins, reflected as wavenet.features does: (B, T) -> (B, padded), T = F hop."""
        return F.pad(wav[:, None], (self.margin, self.margin), mode="reflect")[:, 0]

    def cut(self, padded: Tensor) -> Tensor:
        """Without the margins: (..., padded) -> (..., T), T = F hop."""
        return padded[..., self.margin : self.margin + self.frames * self.audio.hop_length]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """(..., F, n_fft) -> (..., padded), hop by hop: several times as fast as torch's fold."""
        hop = self.audio.hop_length
        hops = -(-self.audio.n_fft // hop)
        added = frames.new_zeros(*frames.shape[:-2], self.frames + hops - 1, hop)
        for i in range(hops):
            part = frames[..., i * hop : (i + 1) * hop]
            added[..., i : i + self.frames, : part.shape[-1]] += part
        return added.flatten(-2)[..., : self.padded]
