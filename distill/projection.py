r"""A signal brought to the mel that it was made from: gains on its short-time spectrum, in a few steps.

A model's sample has the mel only nearly: its noise falls as it falls, its levels are learned. With B the mel basis and
m the given mel, Y the spectrum of y in frames, each step is

    x' = nearest signal to Y_k exp( sum_b B_bk (m_b - mel_b(y)) / sum_b B_bk )
    y  = x' + 0.9 (x' - x),   x <- x'

and begins at x = y = the sample; the first is without momentum (y = x'), which would turn over what begins more than
6.5 dB too loud: a step takes down 17 dB at most, so that up to 24 dB too loud phases stay, as the fine structure inside
a band does, the model's. As in the iteration of Griffin and Lim 1984 a condition and the signals that frames can have
take turns, but the condition is on the bands alone, and the start is speech. The momentum is that of Perraudin, Balazs
and Sondergaard 2013, A fast Griffin-Lim algorithm (WASPAA). Without it the same mel takes four times as many steps, and
sounds worse (docs/results.md).

The result is a function of a sample and no sample: the densities that models state are those of samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distill.framing import Framing
from wavenet.config import AudioConfig, require
from wavenet.device import full_precision
from wavenet.errors import UserError
from wavenet.features import mel_basis

STEPS = 32  # what commands take, unless told
_MOMENTUM = 0.9
_MOST = 2.0  # nats that one step may change a bin by
_CHUNK = 8192  # frames at once
_TINY = 1e-12


@torch.no_grad()
@full_precision()
def project(wav: Tensor, mel: Tensor, audio: AudioConfig, steps: int = STEPS) -> Tensor:
    """wav (B, T) -> (B, T) float32 whose mel is nearer to mel (B, M, F), T = F hop; 0 steps: wav as it is.

    Long signals are done in chunks that overlap by all that decides a sample, so that the memory is bounded and the
    result the same. What is shorter than the mel's margin has no mel, and stays. Raises UserError for steps below 0,
    for shapes that disagree, and for an analysis whose frames do not overlap (`possible`).
    """
    require(steps >= 0, "steps", steps, "0 or more")
    if mel.dim() != 3 or mel.shape[1] != audio.n_mels:
        raise UserError(f"mel: found shape {tuple(mel.shape)}, expected (B, {audio.n_mels}, F)")
    frames, hop = mel.shape[2], audio.hop_length
    if wav.shape != (len(mel), frames * hop):
        raise UserError(f"wav: found shape {tuple(wav.shape)}, expected ({len(mel)}, {frames * hop}), as the mel says")
    if steps == 0 or len(wav) == 0 or frames * hop <= (audio.n_fft - hop) // 2:
        return wav.float()
    require(possible(audio), "audio.win_length", audio.win_length, f"more than hop_length = {hop} for a projection")
    # A sample hears of those that share a frame with it in a step, and a chunk's ends are wrong by one step more.
    overlap = (steps + 1) * math.ceil(audio.n_fft / hop)
    parts = []
    for first in range(0, frames, _CHUNK):
        begin, end = max(0, first - overlap), min(frames, first + _CHUNK + overlap)
        part = _steps(wav[:, begin * hop : end * hop].float(), mel[:, :, begin:end].float(), audio, steps)
        parts.append(part[:, (first - begin) * hop :][:, : _CHUNK * hop])
    return torch.cat(parts, 1)


def possible(audio: AudioConfig) -> bool:
    """Whether frames overlap: between frames that only touch, under a window that ends in 0, nothing is known."""
    return audio.win_length > audio.hop_length


def _steps(wav: Tensor, mel: Tensor, audio: AudioConfig, steps: int) -> Tensor:
    framing = Framing(audio, mel.shape[2], wav.device)
    basis = mel_basis(audio).to(wav.device)
    share = basis.T / basis.sum(0).clamp(min=_TINY)[:, None]  # (bins, M); bins in no band keep their level
    mel = mel.clamp(min=math.log(audio.log_clamp))  # below it no signal is told from another
    ahead = wav
    for step in range(steps):
        spectrum = framing.analyse(framing.pad(ahead))
        found = (basis @ spectrum.abs()).clamp(min=audio.log_clamp).log()
        gain = share @ (mel - found).clamp(-_MOST, _MOST)
        before, wav = wav, framing.cut(framing.synthesise(spectrum * gain.exp()))
        # The first step also sets levels, and nine tenths more of what takes one far down would turn its sign over.
        ahead = wav + _MOMENTUM * (wav - before) if step > 0 else wav
    return wav
