"""Conditioning: the starting interpolation is linear, commutes with projection, and windows are exact."""

import numpy as np
import pytest
import torch

from tests.conftest import AUDIO, UPSAMPLE, random_mel, randomise
from wavenet.errors import UserError
from wavenet.upsample import Conditioning, Upsample


def build(speakers: int = 0) -> Upsample:
    torch.manual_seed(0)
    return Upsample(UPSAMPLE, AUDIO.n_mels, AUDIO.hop_length, speakers, 3).double()


def test_starts_as_linear_interpolation_between_frame_centres():
    upsample = build()
    frames = torch.randn(1, 2, 6, dtype=torch.float64)
    padded = torch.nn.functional.pad(frames, (1, 1), mode="replicate")
    samples = Conditioning(padded, upsample.kernel).at_samples()[0].detach().numpy()
    hop = AUDIO.hop_length
    centres = (np.arange(6) + 0.5) * hop
    for channel in range(2):
        expected = np.interp(np.arange(6 * hop) + 0.5, centres, frames[0, channel].numpy())
        np.testing.assert_allclose(samples[channel], expected, atol=1e-12)


def test_projection_and_interpolation_commute_for_any_kernel():
    upsample = randomise(build())
    with torch.no_grad():
        upsample.kernel.add_(torch.randn_like(upsample.kernel))
    cond, weight = upsample(random_mel()), torch.randn(7, UPSAMPLE.channels, dtype=torch.float64)
    torch.testing.assert_close(cond.project(weight).at_samples(), weight @ cond.at_samples(), rtol=1e-12, atol=1e-12)


def test_window_equals_the_part_of_the_whole():
    cond, hop = build()(random_mel(frames=7)), AUDIO.hop_length
    whole = cond.at_samples()
    for first, last in ((0, 1), (2, 5), (6, 7), (0, 7)):
        part = cond.window(first, last).at_samples()
        torch.testing.assert_close(part, whole[:, :, first * hop : last * hop], rtol=1e-14, atol=1e-14)


def test_frames_reach_only_their_neighbourhood():
    upsample, mel = randomise(build()), random_mel(batch=1, frames=9).requires_grad_()
    sample = upsample(mel).at_samples()[0, :, 4 * AUDIO.hop_length + 1].sum()
    (gradient,) = torch.autograd.grad(sample, mel)
    # Two 3-tap convolutions and the interpolation with the previous frame: frames 1 to 6 at the start of frame 4.
    assert gradient[0].abs().sum(0).nonzero().flatten().tolist() == [1, 2, 3, 4, 5, 6]


def test_statistics_standardise_the_mel():
    upsample, mel = build(), random_mel()
    plain = upsample(mel).frames
    upsample.set_statistics(torch.full((6,), 3.0), torch.full((6,), 2.0))
    torch.testing.assert_close(upsample(mel * 2 + 3).frames, plain)


def test_speaker_matters_and_is_checked():
    upsample, mel = build(speakers=2), random_mel()
    one, two = (upsample(mel, torch.tensor([index, index])).frames for index in (0, 1))
    assert float((one - two).detach().abs().max()) > 1e-3
    with pytest.raises(UserError, match="speaker: found none"):
        upsample(mel)
    with pytest.raises(UserError, match=r"speaker: found \[0, 2\], expected 0 to 1"):
        upsample(mel, torch.tensor([0, 2]))


@pytest.mark.parametrize("shape", [(1, 5, 3), (6, 3), (1, 6, 0)])
def test_wrong_mel_is_named(shape):
    with pytest.raises(UserError, match=r"mel: found shape .* expected \(B, 6, F\)"):
        build()(torch.zeros(shape, dtype=torch.float64))
