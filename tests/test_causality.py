"""d p(x_t) / d x_u is exactly 0 for u >= t, not 0 at t - 1, and exactly 0 before the receptive field's formula."""

import pytest
import torch

from tests.conftest import random_mel, random_wav, small_student, small_teacher


def parameters(distribution) -> torch.Tensor:
    """Every parameter of the distribution, (B, T, P)."""
    if hasattr(distribution, "log_scale"):
        found = [distribution.loc, distribution.log_scale]
        if distribution.loc.dim() == 2:
            return torch.stack(found, -1)
        return torch.cat([*found, distribution.logits], -1)
    return distribution.logits


def seen(model, t: int, frames: int) -> list[int]:
    wav, mel = random_wav(1, frames).requires_grad_(), random_mel(1, frames)
    p = parameters(model(wav, mel))[0, t]
    weights = torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(3))
    (gradient,) = torch.autograd.grad((p * weights).sum(), wav)
    return gradient[0].nonzero().flatten().tolist()


@pytest.mark.parametrize("kind", ["mol", "gaussian", "mulaw"])
@pytest.mark.parametrize("kernel_size", [2, 3])
def test_teacher_sees_the_past_and_its_receptive_field(kind, kernel_size):
    teacher = small_teacher(kind, kernel_size=kernel_size)
    t = 60
    assert t > teacher.receptive_field
    assert seen(teacher, t, frames=5) == list(range(t - teacher.receptive_field, t))


@pytest.mark.parametrize("kind", ["mol", "gaussian", "mulaw"])
def test_first_sample_depends_on_nothing(kind):
    assert seen(small_teacher(kind), 0, frames=2) == []


@pytest.mark.parametrize("noise", ["logistic", "normal"])
def test_student_distribution_sees_the_past_noise_only(noise):
    student = small_student(noise)
    z, mel = random_wav(1, 4).requires_grad_(), random_mel(1, 4)
    for t in (0, 1, 17, 40):
        distribution = student(z, mel).distribution
        for parameter in (distribution.loc, distribution.log_scale):
            (gradient,) = torch.autograd.grad(parameter[0, t], z, retain_graph=True, allow_unused=True)
            reached = [] if gradient is None else gradient[0].nonzero().flatten().tolist()
            assert all(u < t for u in reached)
            assert t == 0 or t - 1 in reached


def test_student_log_scale_sees_exactly_its_receptive_field():
    student = small_student(flows=2)
    z, mel, t = random_wav(1, 5).requires_grad_(), random_mel(1, 5), 70
    assert t > student.receptive_field
    log_scale = student(z, mel).distribution.log_scale[0, t]
    (gradient,) = torch.autograd.grad(log_scale, z)
    assert gradient[0].nonzero().flatten().tolist() == list(range(t - student.receptive_field, t))


def test_mel_reaches_the_samples_it_should():
    teacher, frames = small_teacher(), 9
    wav, mel = random_wav(1, frames), random_mel(1, frames).requires_grad_()
    t = 4 * 16 + 8
    (gradient,) = torch.autograd.grad(parameters(teacher(wav, mel))[0, t].sum(), mel)
    reached = gradient[0].abs().sum(0).nonzero().flatten().tolist()
    assert 4 in reached
    # Nothing later than the two 3-tap convolutions and the interpolation look ahead: 4 + 1 + 2.
    assert max(reached) == 7
