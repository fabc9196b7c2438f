"""The gate: the baseline is the likelihood of linear prediction, and a weaker teacher is refused."""

import math

import pytest
import torch

from distill.gate import check_teacher, linear_prediction_baseline, residual_baseline
from distill.train import _gate
from wavenet.audio import write_audio
from wavenet.config import AudioConfig, DistributionConfig, StackConfig, TeacherConfig
from wavenet.data import open_corpus
from wavenet.errors import UserError
from wavenet.likelihood import held_out
from wavenet.teacher import Teacher

AUDIO = AudioConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=20, f_max=4000.0)


def test_baseline_reaches_the_entropy_rate_of_an_autoregression(tmp_path):
    """An AR(2) source lies inside the model, so its held-out nll is log(sigma sqrt(2 pi e)) up to sampling error."""
    sigma, generator = 0.02, torch.Generator().manual_seed(0)
    for number in range(6):
        x = torch.zeros(16_000)
        noise = sigma * torch.randn(16_000, generator=generator)
        for t in range(2, 16_000):
            x[t] = 1.2 * x[t - 1] - 0.6 * x[t - 2] + noise[t]
        write_audio(tmp_path / f"{number}.wav", x, 8000)
    (tmp_path / "train.txt").write_text("0\n1\n2\n3\n")
    (tmp_path / "dev.txt").write_text("4\n5\n")
    (tmp_path / "test.txt").write_text("")
    corpus = open_corpus(str(tmp_path), AUDIO)
    found = linear_prediction_baseline(corpus.train, corpus.dev, AUDIO)
    assert found == pytest.approx(math.log(sigma * math.sqrt(2 * math.pi * math.e)), abs=0.02)


def untrained(scale: float) -> Teacher:
    """A teacher with linear prediction that says N(0, scale^2) of its residual, whatever the past."""
    law = DistributionConfig("gaussian", log_scale_floor=-30.0)
    stack = StackConfig(1, 2, 2, 4, 4, 4)
    teacher = Teacher(TeacherConfig(AUDIO, stack, distribution=law, gain=20.0, linear_prediction=16)).eval()
    with torch.no_grad():
        teacher.stack.output.weight.zero_()
        teacher.stack.output.bias.copy_(torch.tensor([0.0, math.log(scale)]))
    return teacher


def test_what_a_teacher_with_linear_prediction_is_given_is_no_learning():
    """It lies far below the other baseline before its first step, and does not pass for that."""
    corpus = open_corpus("bundled", AUDIO)
    clips = corpus.dev[:2]
    given = residual_baseline(untrained(1.0), clips, clips)
    scores = [held_out(untrained(scale), clips).nll_density for scale in (0.7, 0.8, 0.9, 1.0, 1.1, 1.2)]
    assert min(scores) - 0.01 < given < min(scores) + 1e-5
    plain = linear_prediction_baseline(corpus.train, clips, AUDIO)
    assert given < plain - 1
    with pytest.raises(UserError, match=r"at least 0\.3 below"):
        _gate(untrained(1.0), corpus, 2, "RUN", False)


def test_better_teachers_pass_and_weaker_ones_need_force():
    assert "held-out NLL -3.000" in check_teacher(-3.0, -2.0, "RUN", force=False)
    with pytest.raises(
        UserError,
        match=r"RUN: held-out NLL -1\.000 .* linear prediction -2\.000; expected a teacher at least 0\.3 below",
    ):
        check_teacher(-1.0, -2.0, "RUN", force=False)
    with pytest.raises(UserError, match=r"at least 0\.3 below"):
        check_teacher(-2.2, -2.0, "RUN", force=False)
    assert "distilled all the same" in check_teacher(-1.0, -2.0, "RUN", force=True)
    with pytest.raises(UserError):
        check_teacher(float("nan"), -2.0, "RUN", force=False)
