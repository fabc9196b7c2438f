r"""Contrastive distillation: what a teacher of another clip's conditioning would have found likely is to be unlikely.

van den Oord et al. 2017, arXiv 1711.10433, additional loss terms:
KL(p_s(c1) || p_t(c1)) - gamma KL(p_s(c1) || p_t(c2)), gamma = 0.3. The first part is the term `kl`; this is the second.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wavenet.data import Batch
from wavenet.errors import UserError
from wavenet.pitch.contour import Pitch


def bounded(divergence: Tensor, cap: float) -> Tensor:
    """cap tanh(KL / cap), the same shape: KL where it is small against `cap` [nats/sample], never more than cap.

    -KL has no lower bound: where the teachers' laws are narrow, a student can win any amount by a sample that c2
    excludes, at the price of one that c1 barely allows. tanh keeps the value and the slope 1 at 0, and lets the
    gradient die out once the two clips are told apart; min(KL, cap) would switch it off at a jump.
    """
    return cap * torch.tanh(divergence / cap)


def another_clip(batch: Batch) -> Batch:
    """c2: for every row the mel, and with it the speaker and pitch, of the row before it; wav stays.

    All that a teacher is conditioned on belongs to c2. Of two rows of one speaker only the words differ.
    Raises UserError for a batch of one row, which has no other.
    """
    check_rows(len(batch.mel))
    speaker = None if batch.speaker is None else batch.speaker.roll(1, 0)
    pitch = None if batch.pitch is None else Pitch(*(values.roll(1, 0) for values in batch.pitch))
    return Batch(batch.wav, batch.mel.roll(1, 0), speaker, pitch)


def half_a_clip_later(batch: Batch) -> Batch:
    """c2 for a held-out clip, which comes alone: its own frames, half the clip later, in a circle."""
    shift = batch.mel.shape[2] // 2
    pitch = None if batch.pitch is None else Pitch(*(values.roll(shift, 1) for values in batch.pitch))
    return Batch(batch.wav, batch.mel.roll(shift, 2), batch.speaker, pitch)


def check_rows(rows: int) -> None:
    """Raise UserError unless a batch of `rows` holds another clip for each."""
    if rows < 2:
        raise UserError(f"train.batch_size: found {rows}, expected at least 2 for the contrastive term")
