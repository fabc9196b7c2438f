"""Log-mel spectrogram, equal to HiFi-GAN's (arXiv 2010.05646), and the one rule that ties frames to samples."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavenet.config import AudioConfig
from wavenet.errors import UserError

_POWER_OFFSET = 1e-9  # HiFi-GAN's, inside the square root: keeps the gradient of silence finite


class LogMel(nn.Module):
    r"""wav (B, T) in [-1, 1] -> mel (B, M, F) in nats, F = T / hop_length.

        mel = log(max(basis @ sqrt(re^2 + im^2 + 1e-9), log_clamp))

    with a Hann window, Slaney mel bands of unit area, and `margin` = (n_fft - hop_length) / 2 samples of reflection at
    either end. Frame i sees the n_fft samples centred on its own samples [i hop, (i + 1) hop) and no others.
    Parameter-free; works in the precision of its buffers, also under autocast.
    """

    window: Tensor
    basis: Tensor

    def __init__(self, audio: AudioConfig) -> None:
        super().__init__()
        self.audio = audio
        self.margin = (audio.n_fft - audio.hop_length) // 2
        self.register_buffer("window", torch.hann_window(audio.win_length), persistent=False)
        self.register_buffer("basis", mel_basis(audio), persistent=False)

    @staticmethod
    def shortest(audio: AudioConfig) -> int:
        """Length [samples] of the shortest recording that has a mel: whole frames, more than the reflected margin."""
        margin = (audio.n_fft - audio.hop_length) // 2
        return (margin // audio.hop_length + 1) * audio.hop_length

    def forward(self, wav: Tensor) -> Tensor:
        """Mel of whole recordings. Raises UserError unless T is a multiple of hop_length and longer than the margin."""
        length, hop = wav.shape[-1], self.audio.hop_length
        if length % hop:
            raise UserError(f"wav: found {length} samples, expected a multiple of hop_length = {hop}")
        if length <= self.margin:
            raise UserError(f"wav: found {length} samples, expected more than (n_fft - hop_length) / 2 = {self.margin}")
        return self.of_padded(F.pad(wav[:, None], (self.margin, self.margin), mode="reflect")[:, 0])

    def of_padded(self, wav: Tensor) -> Tensor:
        """Mel of a stretch that brings its margins along: (B, margin + T + margin) -> (B, M, F), nothing reflected."""
        with torch.autocast(wav.device.type, enabled=False):
            spectrum = torch.stft(
                wav.to(self.window.dtype),
                self.audio.n_fft,
                hop_length=self.audio.hop_length,
                win_length=self.audio.win_length,
                window=self.window,
                center=False,
                return_complex=True,
            )
            magnitude = (spectrum.real.square() + spectrum.imag.square() + _POWER_OFFSET).sqrt()
            return torch.matmul(self.basis, magnitude).clamp(min=self.audio.log_clamp).log()


def mel_basis(audio: AudioConfig) -> Tensor:
    """Slaney mel filters of unit area, (M, n_fft / 2 + 1) float32: torchaudio's, or librosa's where that is broken.

    A torchaudio built for another torch, or for CUDA beside a CPU-only torch, raises any of these at import.
    """
    try:
        from torchaudio.functional import melscale_fbanks
    except (ImportError, OSError, RuntimeError, AttributeError):
        return librosa_basis(audio)
    filters = melscale_fbanks(
        audio.n_fft // 2 + 1,
        audio.f_min,
        audio.f_max,
        audio.n_mels,
        audio.sample_rate,
        norm="slaney",
        mel_scale="slaney",
    )
    return filters.T.contiguous().float()


def librosa_basis(audio: AudioConfig) -> Tensor:
    """The same filters from librosa, (M, n_fft / 2 + 1) float32."""
    import librosa.filters

    filters = librosa.filters.mel(
        sr=audio.sample_rate, n_fft=audio.n_fft, n_mels=audio.n_mels, fmin=audio.f_min, fmax=audio.f_max
    )
    return torch.from_numpy(filters).float()
