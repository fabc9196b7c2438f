"""A student with a source-filter prior, and a teacher with a source: the same proofs as without, and the switch."""

import math

import numpy as np
import pytest
import torch

from tests.conftest import AUDIO, random_mel, random_wav, small_student, small_teacher
from tests.test_causality import parameters
from wavenet.errors import UserError
from wavenet.pitch.contour import Pitch, read_contour

SOURCED = {"prior": "source_filter"}


def pitch(frames: int, batch: int = 1) -> Pitch:
    voiced = (torch.arange(frames) % 4 != 3).double().expand(batch, -1)
    return Pitch(torch.linspace(400.0, 700.0, frames).double().expand(batch, -1), voiced)


@pytest.mark.parametrize("noise", ["logistic", "normal"])
def test_student_is_its_own_chain_and_its_jacobian_is_triangular(noise):
    student, mel = small_student(noise, **SOURCED), random_mel(1, 4)
    z = student.noise(mel, generator=torch.Generator().manual_seed(0))
    sample = student(z, mel, pitch=pitch(4), offset=torch.tensor([0.4]).double())
    cond = student.conditioning(mel, pitch=pitch(4), offset=torch.tensor([0.4]).double())
    chained, log_det = student.chain(z, cond)
    torch.testing.assert_close(sample.wav, chained, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(sample.log_det, log_det, rtol=1e-11, atol=1e-11)
    d = sample.distribution
    torch.testing.assert_close(sample.wav, d.loc + d.scale * z, rtol=1e-10, atol=1e-10)
    jacobian = torch.autograd.functional.jacobian(
        lambda u: student(u[None], mel, pitch=pitch(4), offset=torch.tensor([0.4]).double()).wav[0], z[0]
    )
    assert (jacobian.triu(1) == 0).all()
    torch.testing.assert_close(jacobian.diagonal(), d.scale[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(sample.log_det[0], torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-10, atol=1e-10)


def test_loc_and_scale_know_nothing_of_z_t_or_later():
    student, mel = small_student(**SOURCED), random_mel(1, 4)
    z = random_wav(1, 4).requires_grad_()
    for t in (0, 1, 17, 40):
        distribution = student(z, mel, pitch=pitch(4)).distribution
        for parameter in (distribution.loc, distribution.log_scale):
            (gradient,) = torch.autograd.grad(parameter[0, t], z, retain_graph=True, allow_unused=True)
            reached = [] if gradient is None else gradient[0].nonzero().flatten().tolist()
            assert all(u < t for u in reached)
            assert t == 0 or t - 1 in reached


@pytest.mark.parametrize("noise", ["logistic", "normal"])
def test_log_prob_is_change_of_variables(noise):
    student, mel = small_student(noise, **SOURCED), random_mel(2, 4)
    z = student.noise(mel, generator=torch.Generator().manual_seed(0))
    sample = student(z, mel)
    if noise == "logistic":
        base = -(z + 2 * torch.nn.functional.softplus(-z))
    else:
        base = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    found = student.log_prob(sample.wav, mel)
    torch.testing.assert_close(found, base.sum(1) - sample.log_det, rtol=1e-8, atol=1e-7)
    torch.testing.assert_close(found, sample.distribution.log_prob(sample.wav).sum(1), rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize("sharpening", [0, 2])
@pytest.mark.parametrize("given", [False, True], ids=["predicted", "given"])
def test_chunks_carry_the_phase_on(given, sharpening):
    student, mel = small_student(**SOURCED, sharpening=sharpening), random_mel(2, 23)
    contour = pitch(23, 2) if given else None
    whole = student.sample(mel, generator=torch.Generator().manual_seed(0), pitch=contour)
    student.chunk_length = 5 * AUDIO.hop_length
    parts = student.sample(mel, generator=torch.Generator().manual_seed(0), pitch=contour)
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-10)
    again = student(student.noise(mel, generator=torch.Generator().manual_seed(0)), mel)
    if not given:
        torch.testing.assert_close(whole, again.wav, rtol=1e-10, atol=1e-10)


def test_signal_model_alone_is_flow_0_and_uses_nothing_learned_but_pitch():
    student, mel = small_student(**SOURCED), random_mel(1, 6)
    before = student.sample(mel, generator=torch.Generator().manual_seed(0), pitch=pitch(6), signal_model=True)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if not name.startswith("pitch."):
                parameter.mul_(1.7)
    after = student.sample(mel, generator=torch.Generator().manual_seed(0), pitch=pitch(6), signal_model=True)
    torch.testing.assert_close(after, before, rtol=0.0, atol=0.0)
    with pytest.raises(UserError, match="signal_model"):
        small_student().sample(mel, signal_model=True)


def test_prior_none_is_the_textbook_student():
    plain = small_student()
    assert plain.prior is None
    assert not [name for name in plain.state_dict() if name.startswith(("prior.", "pitch."))]
    assert plain.flows[0].stack.input.in_channels == 1


def test_given_pitch_must_fit_the_mel():
    student, mel = small_student(**SOURCED), random_mel(1, 4)
    with pytest.raises(UserError, match="pitch: found"):
        student.sample(mel, pitch=pitch(5))


def test_the_pitch_network_is_not_trained_by_distillation():
    student, mel = small_student(**SOURCED), random_mel(1, 4)
    student(student.noise(mel), mel).wav.square().sum().backward()
    assert all(p.grad is None for name, p in student.named_parameters() if name.startswith("pitch."))
    assert all(
        p.grad is not None and bool(p.grad.abs().sum() > 0)
        for name, p in student.named_parameters()
        if name.startswith("prior.")
    )


def test_teacher_with_a_source_sees_the_past_only_and_its_source():
    teacher, frames, t = small_teacher(source=True), 5, 60
    wav, mel = random_wav(1, frames).requires_grad_(), random_mel(1, frames)
    p = parameters(teacher(wav, mel, pitch=pitch(frames)))[0, t]
    (gradient,) = torch.autograd.grad((p * torch.randn(p.shape).double()).sum(), wav)
    assert gradient[0].nonzero().flatten().tolist() == list(range(t - teacher.receptive_field, t))
    moved = teacher(wav, mel, pitch=pitch(frames).transposed(1.0))
    assert not torch.allclose(parameters(moved), parameters(teacher(wav, mel, pitch=pitch(frames))))


def test_teacher_with_a_source_samples_alike_by_every_method():
    teacher, mel = small_teacher(source=True), random_mel(2, 5)
    cached, naive = (
        teacher.sample(mel, method=method, generator=torch.Generator().manual_seed(0)) for method in ("cached", "naive")
    )
    torch.testing.assert_close(cached, naive, rtol=1e-9, atol=1e-9)


def test_contours_from_files(tmp_path):
    frames = tmp_path / "frames.txt"
    frames.write_text("0\n100\n200\n0\n")
    found = read_contour(frames, 4, AUDIO)
    assert found.voiced[0].tolist() == [0, 1, 1, 0]
    assert found.f0[0].tolist() == [100, 100, 200, 200]
    centres = (np.arange(4) + 0.5) * AUDIO.hop_length / AUDIO.sample_rate
    np.save(tmp_path / "times.npy", np.stack([[0.9 * centres[0], centres[2], centres[3]], [100.0, 400.0, 0.0]], 1))
    found = read_contour(tmp_path / "times.npy", 4, AUDIO)
    assert found.voiced[0].tolist() == [1, 1, 1, 0]
    share = (centres[1] - 0.9 * centres[0]) / (centres[2] - 0.9 * centres[0])
    assert float(found.f0[0, 1]) == pytest.approx(100.0 * 4**share, rel=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\n2\n", "2 values"),
        ("a\nb\n", "something else"),
        ("100\n-1\n100\n100\n", "negative"),
        ("1 2 3\n", "shape"),
        ("0 100\n0 100\n", "times that do not rise"),
        ("5\n5\n5\n5\n", "found 5 Hz, expected F0 of 20 or more"),
        ("9000\n100\n100\n100\n", "below 4000"),
        ("", "shape"),
    ],
)
def test_wrong_contours_are_named_in_one_line(tmp_path, content, message):
    path = tmp_path / "f0.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_contour(path, 4, AUDIO)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_density_of_a_long_sample_in_float32_is_the_forward_pass():
    """The inverse forgets its rounding errors: thousands of samples cost no more than a few."""
    student, mel = small_student(prior="source_filter").float(), (random_mel(2, 250) - 6).float()
    with torch.no_grad():
        sample = student(student.noise(mel, generator=torch.Generator().manual_seed(0)), mel)
        expected = student.base(mel).log_prob(sample.noise).sum(1) - sample.log_det
    torch.testing.assert_close(student.log_prob(sample.wav, mel), expected, rtol=1e-4, atol=0.5)
