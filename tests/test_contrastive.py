"""The contrastive term: the paper's loss where it is not bounded, bounded below, another clip for the teacher alone."""

import math

import pytest
import torch

from distill import kl
from distill.contrastive import another_clip, bounded, half_a_clip_later
from distill.distillation import Distillation
from distill.objective import Objective, ObjectiveConfig
from distill.student import Sample
from tests.conftest import random_mel, random_wav, small_student, small_teacher
from wavenet.data import Batch
from wavenet.distributions.gaussian import Gaussian
from wavenet.errors import UserError
from wavenet.pitch.contour import Pitch

WEIGHTS = {"kl": 1.0, "contrastive": 1.0}
NO_BOUND = 1e9


def batch(mel: torch.Tensor, speaker=None) -> Batch:
    return Batch(random_wav(len(mel), mel.shape[2]), mel, speaker)


def terms_of(mel, cap=NO_BOUND, kind="gaussian", noise="normal", weights=WEIGHTS, **settings):
    step = Distillation(
        small_teacher(kind), ObjectiveConfig(weights, 4, [32], contrastive_cap=cap, **settings), 96, len(mel)
    )
    student = small_student(noise).train()
    return step, student, step.loss(student, batch(mel), torch.Generator().manual_seed(0))


def test_weights_of_one_give_the_papers_loss():
    """KL(p_s(c1) || p_t(c1)) - 0.3 KL(p_s(c1) || p_t(c2)), one sample, by torch's own divergence of normals."""
    mel = random_mel(3, 6)
    step, student, terms = terms_of(mel)
    sample = student(student.noise(mel, generator=torch.Generator().manual_seed(0)), mel)
    normal = torch.distributions.Normal
    q = normal(sample.distribution.loc, sample.distribution.scale)

    def divergence(conditioning):
        law = step.teacher(sample.wav, conditioning)
        return torch.distributions.kl_divergence(q, normal(law.loc, law.scale))[:, step.start :].mean()

    other = torch.stack([mel[2], mel[0], mel[1]])
    torch.testing.assert_close(terms["loss"], divergence(mel) - 0.3 * divergence(other), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(terms["contrastive/kl"], divergence(other))


@pytest.mark.parametrize("estimator", ["conditional", "log_ratio"])
def test_both_teachers_are_scored_at_the_same_draws(estimator):
    """Rows of one mel: c1 = c2, and the two estimates are equal to the last digits, random as they are."""
    mel = random_mel(1, 6).expand(2, -1, -1)
    _, _, terms = terms_of(mel, kind="mol", noise="logistic", kl_estimator=estimator)
    torch.testing.assert_close(terms["contrastive/kl"], terms["kl/kl"], rtol=1e-12, atol=0)
    torch.testing.assert_close(terms["loss"], 0.7 * terms["kl/kl"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("estimator", ["conditional", "log_ratio"])
def test_term_never_pays_more_than_gamma_times_the_cap(estimator):
    far = 50 * random_mel(2, 6)
    _, _, terms = terms_of(far, cap=0.2, kl_estimator=estimator)
    assert float(terms["contrastive/kl"].detach()) > 1
    assert -0.3 * 0.2 <= float(terms["loss/contrastive"].detach()) < -0.3 * 0.19


def test_bound_is_the_divergence_where_small_and_flat_where_large():
    value = torch.tensor([0.0, 1e-3, 2.0, 100.0], dtype=torch.float64, requires_grad=True)
    found = bounded(value, 2.0)
    (slope,) = torch.autograd.grad(found.sum(), value)
    expected = [0.0, 1e-3, 2 * math.tanh(1), 2.0]
    assert found.tolist() == pytest.approx(expected, abs=1e-9)
    assert slope.tolist() == pytest.approx([1.0, 1.0, 1 / math.cosh(1) ** 2, 0.0], abs=1e-6)


def test_best_location_lies_on_the_far_side_of_c1():
    """Normals at c1 = 1 and c2 = -1 of equal scale: the loss is least at (c1 - gamma c2) / (1 - gamma)."""
    best = (1 + 0.3) / (1 - 0.3)
    loc = torch.full((1, 5), best, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros_like(loc)
    sample = Sample(loc, Gaussian(loc, zero), zero, zero.sum(1))
    objective = Objective(ObjectiveConfig(WEIGHTS, contrastive_cap=NO_BOUND), 0.9, 1.0, -9.0, 0)
    terms = objective(sample, Gaussian(zero + 1, zero), zero, None, Gaussian(zero - 1, zero))
    (gradient,) = torch.autograd.grad(terms["loss"], loc)
    assert float(gradient.abs().max()) < 1e-9
    assert float(kl.kl_gaussian(sample.distribution, Gaussian(zero + 1, zero)).mean().detach()) > 0.1


def test_speaker_and_pitch_belong_to_the_other_conditioning():
    pitch = Pitch(torch.tensor([[100.0], [200.0], [300.0]]), torch.tensor([[1.0], [0.0], [1.0]]))
    mel = random_mel(3, 1)
    other = another_clip(Batch(random_wav(3, 1), mel, torch.tensor([4, 5, 6]), pitch))
    assert other.speaker.tolist() == [6, 4, 5]
    assert other.pitch.f0.flatten().tolist() == [300.0, 100.0, 200.0]
    assert other.pitch.voiced.flatten().tolist() == [1.0, 1.0, 0.0]
    assert torch.equal(other.mel[1], mel[0])


def test_teacher_of_speakers_hears_the_other_speaker():
    """Two rows of one mel and two speakers: only the speaker tells c1 from c2, and the divergences differ."""
    teacher, student = small_teacher("gaussian", speakers=2), small_student("normal", speakers=2).train()
    step = Distillation(teacher, ObjectiveConfig(WEIGHTS), 96)
    mel = random_mel(1, 6).expand(2, -1, -1)
    terms = step.loss(student, batch(mel, torch.tensor([0, 1])), torch.Generator().manual_seed(0))
    assert abs(float((terms["contrastive/kl"] - terms["kl/kl"]).detach())) > 1e-5


def test_held_out_clip_is_contrasted_with_its_own_other_half():
    mel = random_mel(1, 6)
    later = half_a_clip_later(batch(mel, torch.tensor([1])))
    assert torch.equal(later.mel, torch.cat([mel[:, :, 3:], mel[:, :, :3]], 2))
    assert later.speaker.tolist() == [1]
    step = Distillation(small_teacher("gaussian"), ObjectiveConfig(WEIGHTS), 96)
    terms = step.loss(small_student("normal").eval(), batch(mel), torch.Generator().manual_seed(0))
    assert float(terms["contrastive/kl"].detach()) != float(terms["kl/kl"].detach())


def test_single_row_has_no_other_clip():
    expected = "train.batch_size: found 1, expected at least 2 for the contrastive term"
    with pytest.raises(UserError) as at_start:
        Distillation(small_teacher(), ObjectiveConfig(WEIGHTS), 96, batch_size=1)
    step = Distillation(small_teacher(), ObjectiveConfig(WEIGHTS), 96)
    with pytest.raises(UserError) as at_once:
        step.loss(small_student().train(), batch(random_mel(1, 6)), None)
    assert str(at_start.value) == str(at_once.value) == expected
    Distillation(small_teacher(), ObjectiveConfig({"kl": 1.0}), 96, batch_size=1)


def test_gradient_of_the_term_reaches_the_student_and_not_the_teacher():
    step, student, terms = terms_of(random_mel(2, 6), cap=3.0)
    terms["loss/contrastive"].backward()
    assert all(parameter.grad is None for parameter in step.teacher.parameters())
    assert float(student.flows[0].stack.input.weight.grad.abs().max()) > 0
