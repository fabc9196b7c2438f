"""The pitch network: reads classes off exactly, learns known pitch, sees what it says it sees, leaves no clicks."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from wavenet.config import AudioConfig, PitchConfig
from wavenet.errors import UserError
from wavenet.features import LogMel
from wavenet.pitch.accuracy import pitch_errors
from wavenet.pitch.contour import Pitch, filled
from wavenet.pitch.net import F_MAX, F_MIN, PitchNet
from wavenet.pitch.resolution import resolved
from wavenet.pitch.tracker import F0Track

AUDIO = AudioConfig(8000, 256, 256, 64, 40, 0.0, 4000.0)
CONFIG = PitchConfig(AUDIO, channels=24, layers=3, kernel_size=3, bins=128)


def small_net(seed: int = 0) -> PitchNet:
    torch.manual_seed(seed)
    return PitchNet(CONFIG).double().eval()


class Fixed(torch.nn.Module):
    """A network whose outputs are given: (B, 1 + K, F)."""

    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, mel):
        return self.outputs


def net_that_says(voicing_logit, f0):
    net = small_net()
    f0_logits = net.targets(f0).clamp(min=1e-300).log()
    net.network = Fixed(torch.cat([voicing_logit[:, None], f0_logits], 1))
    return net


def test_targets_sum_to_one_and_are_read_back_to_a_fraction_of_a_cent():
    net = small_net()
    f0 = torch.linspace(50, 400, 501, dtype=torch.float64)[None]
    targets = net.targets(f0)
    torch.testing.assert_close(targets.sum(1), torch.ones_like(f0))
    estimate = net_that_says(torch.ones_like(f0), f0)(torch.zeros(1, 40, 501, dtype=torch.float64))
    cents = 1200 / math.log(2) * (estimate.log_f0 - f0.log()).abs()
    assert float(cents.max()) < 0.5  # of a bin of 34 cents


def test_an_octaves_doubt_is_decided_and_not_averaged():
    net = small_net()
    mixed = 0.6 * net.targets(torch.tensor([[100.0]]).double()) + 0.4 * net.targets(torch.tensor([[200.0]]).double())
    net.network = Fixed(torch.cat([torch.ones(1, 1, 1).double(), mixed.log()], 1))
    assert float(net(torch.zeros(1, 40, 1).double()).log_f0.exp()) == pytest.approx(100.0, abs=0.1)


def test_a_contour_is_decided_as_a_whole():
    """An octave's doubt of some frames follows its neighbours; unvoiced frames between stretches free it."""
    net = small_net()
    low = net.targets(torch.full((1, 30), 100.0).double())
    high = net.targets(torch.full((1, 30), 200.0).double())
    share = torch.full((30,), 0.9).double()
    share[10:14] = 0.3  # four frames in the middle that lean to the octave above
    share[25:] = 0.2  # a stretch of its own that is an octave higher
    mixed = (share * low + (1 - share) * high).clamp(min=1e-300)
    voicing = torch.ones(1, 1, 30).double()
    voicing[..., 20:25] = -1
    net.network = Fixed(torch.cat([voicing, mixed.log()], 1))
    frame_by_frame = net(torch.zeros(1, 40, 30).double()).log_f0.exp()
    torch.testing.assert_close(frame_by_frame[0, 10:14], torch.full((4,), 200.0).double(), rtol=1e-3, atol=0)
    found = net.predict(torch.zeros(1, 40, 30).double()).f0[0]
    torch.testing.assert_close(found[:20], torch.full((20,), 100.0).double(), rtol=1e-3, atol=0)
    torch.testing.assert_close(found[25:], torch.full((5,), 200.0).double(), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("hop", "stays"), [(64, True), (256, False)])
def test_a_contours_doubt_counts_by_time(hop, stays):
    """Four frames that lean to the octave above weigh little in 32 ms and outweigh two jumps in 128 ms."""
    torch.manual_seed(0)
    net = PitchNet(dataclasses.replace(CONFIG, audio=dataclasses.replace(AUDIO, hop_length=hop))).double().eval()
    low, high = (net.targets(torch.full((1, 30), f0).double()) for f0 in (100.0, 200.0))
    share = torch.full((30,), 0.9).double()
    share[10:14] = 0.12
    mixed = (share * low + (1 - share) * high).clamp(min=1e-300)
    net.network = Fixed(torch.cat([torch.ones(1, 1, 30).double(), mixed.log()], 1))
    found = net.predict(torch.zeros(1, 40, 30).double()).f0[0]
    expected = torch.full((30,), 100.0).double()
    if not stays:
        expected[10:14] = 200.0
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def test_what_is_unvoiced_decides_nothing():
    """Not even where it is not a number."""
    net = small_net()
    low, high = (net.targets(torch.full((1, 30), f0).double()) for f0 in (100.0, 200.0))
    share = torch.full((30,), 0.9).double()
    share[10:14] = 0.3
    mixed = (share * low + (1 - share) * high).clamp(min=1e-300).log()
    mixed[..., 24] = math.nan
    voicing = torch.ones(1, 1, 30).double()
    voicing[..., 22:27] = -1
    net.network = Fixed(torch.cat([voicing, mixed], 1))
    found = net.predict(torch.zeros(1, 40, 30).double()).f0[0]
    torch.testing.assert_close(found, torch.full((30,), 100.0).double(), rtol=1e-3, atol=0)


def test_a_frame_depends_on_reach_frames_and_no_others():
    net = small_net()
    mel = torch.randn(1, 40, 21, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    estimate = net(mel)
    (grad,) = torch.autograd.grad(estimate.voicing_logit[0, 10] + estimate.log_f0[0, 10], mel)
    seen = grad[0].abs().sum(0).nonzero().flatten()
    assert (int(seen.min()), int(seen.max())) == (10 - net.reach, 10 + net.reach)


def test_a_mel_is_standardised_by_the_statistics_that_travel_in_the_weights():
    net, other = small_net(), small_net(1)
    mean, std = torch.linspace(-9, -3, 40).double(), torch.linspace(0.5, 2, 40).double()
    mel = torch.randn(2, 40, 9, dtype=torch.float64)
    plain = net(mel)
    net.set_statistics(mean, std)
    shifted = net(mel * std[:, None] + mean[:, None])
    torch.testing.assert_close(shifted.log_f0, plain.log_f0)
    torch.testing.assert_close(shifted.voicing_logit, plain.voicing_logit)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(mel).log_f0, net(mel).log_f0)


def test_flips_of_one_frame_are_no_decisions():
    voicing = torch.tensor([[1, 1, -1, 1, 1, -1, -1, 1, -1, -1, 1, 1, -1]]).double()
    net = net_that_says(voicing, torch.full((1, 13), 100.0).double())
    found = net.predict(torch.zeros(1, 40, 13).double())
    assert found.voiced[0].tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0]


def test_pitch_passes_through_unvoiced_frames_as_in_the_labels():
    rng = np.random.default_rng(0)
    f0 = torch.from_numpy(rng.uniform(80, 300, (3, 40)))
    voicing = torch.from_numpy(np.repeat(rng.choice([-1.0, 1.0], (3, 10)), 4, 1))
    voicing[1] = torch.tensor([-1.0] * 12 + [1.0] * 6 + [-1.0] * 22)
    voicing[2] = -1.0
    found = net_that_says(voicing, f0).tracked(torch.zeros(3, 40, 40).double())
    for row in range(2):
        voiced = found.voiced[row].numpy() > 0
        expected = filled(F0Track(np.where(voiced, f0[row].numpy(), 0.0), voiced))
        torch.testing.assert_close(found.f0[row], expected.f0[0].double(), rtol=1e-3, atol=0.0)
    assert not found.voiced[2].any()
    assert bool((found.f0 >= F_MIN).all())
    assert bool((found.f0 <= F_MAX).all())


def test_models_are_given_the_voice_and_not_the_trackers_mean_of_it():
    generator = torch.Generator().manual_seed(0)
    f0 = (math.log(200) + 0.02 * torch.randn(2, 40, generator=generator).cumsum(1)).exp().double()
    mel = torch.randn(2, 40, 40, generator=generator).double()
    net = net_that_says(torch.ones(2, 40).double(), f0)
    tracked, found = net.tracked(mel), net.predict(mel)
    torch.testing.assert_close(tracked.f0, f0, rtol=1e-3, atol=0)
    torch.testing.assert_close(found.f0, resolved(tracked, mel, AUDIO).f0)
    assert float((found.f0 / tracked.f0 - 1).abs().max()) > 0.01
    assert torch.equal(found.voiced, tracked.voiced)


@pytest.mark.parametrize("shape", [(40, 5), (1, 39, 5), (1, 40, 0)])
def test_another_mel_is_refused(shape):
    with pytest.raises(UserError, match=r"mel: found shape .*, expected \(B, 40, F\)"):
        small_net()(torch.zeros(shape).double())


def harmonics(f_from: float, f_to: float, frames: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Harmonics on a glide with pauses of noise: wav (1, T), f0 (1, F) [Hz], voiced (1, F)."""
    rng = np.random.default_rng(seed)
    place = np.arange(frames * 64)
    f0 = f_from * (f_to / f_from) ** (place / len(place))
    phase = 2 * np.pi * np.cumsum(f0) / 8000
    wav = sum(np.cos(k * phase + 0.7 * k * k) / k for k in range(1, 13))
    voiced = place // 64 // 16 % 2 == 0
    wav = 0.05 * wav * voiced + 0.005 * rng.standard_normal(len(place))
    middle = slice(32, None, 64)
    truth = (torch.from_numpy(np.ascontiguousarray(values[middle])).float()[None] for values in (f0, voiced * 1.0))
    return torch.from_numpy(wav).float()[None], *truth


def test_it_learns_pitch_that_is_known():
    """Glides between 90 and 250 Hz; held out: other glides in the same range."""
    from wavenet.data import Batch
    from wavenet.pitch.train import pitch_loss

    log_mel, generator = LogMel(AUDIO), torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)
    examples = [harmonics(*rng.uniform(90, 250, 2), 64, seed) for seed in range(48)]
    wav, f0, voiced = (torch.cat(values) for values in zip(*examples, strict=True))
    mel = log_mel(wav)
    torch.manual_seed(0)
    net = PitchNet(CONFIG)
    net.set_statistics(mel.mean((0, 2)), mel.std((0, 2)))
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for step in range(120):
        rows = slice(step % 3 * 16, step % 3 * 16 + 16)
        batch = Batch(wav[rows], mel[rows], None, Pitch(f0[rows], voiced[rows]))
        optimizer.zero_grad()
        pitch_loss(net, batch, generator)["loss"].backward()
        optimizer.step()
    wav, f0, voiced = harmonics(120, 210, 256, 99)
    errors = pitch_errors([net.predict(log_mel(wav))], [Pitch(f0, voiced)])
    assert errors["median_cents"] < 25
    assert errors["gross"] < 0.05
    assert errors["voicing_error"] < 0.08


def test_errors_of_known_degradations():
    true = Pitch(torch.full((1, 100), 100.0), (torch.arange(100) < 60).float()[None])
    exact = pitch_errors([true], [true])
    assert exact["median_cents"] == exact["rms_cents"] == exact["voicing_error"] == exact["gross"] == 0
    assert exact["within_3_percent"] == 1
    f0 = true.f0.clone()
    f0[0, :6] = 200.0  # an octave up on a tenth of the voiced frames
    f0[0, 6:60] *= 2 ** (20 / 1200)
    found = pitch_errors([Pitch(f0, true.voiced)], [true])
    assert found["median_cents"] == pytest.approx(20, abs=1e-3)
    assert found["gross"] == pytest.approx(0.1)
    assert found["within_3_percent"] == pytest.approx(0.9)
    assert found["rms_cents"] == pytest.approx(math.sqrt(0.1 * 1200**2 + 0.9 * 20**2), rel=1e-4)
    voiced = true.voiced.clone()
    voiced[0, :15], voiced[0, 90:] = 0.0, 1.0
    found = pitch_errors([Pitch(f0, voiced)], [true])
    assert (found["miss"], found["false_alarm"]) == pytest.approx((15 / 60, 10 / 40))
    assert found["voicing_error"] == pytest.approx(0.25)
    assert found["gross"] == 0  # the octave's frames are not voiced in both
    nothing = pitch_errors([Pitch(f0, torch.zeros(1, 100))], [true])
    assert math.isnan(nothing["median_cents"])
    assert nothing["miss"] == 1
