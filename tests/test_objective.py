"""Terms and weights match exactly; the loss is their weighted sum; the teacher never sees the recording."""

import dataclasses

import pytest
import torch

from distill import kl
from distill.distillation import Distillation
from distill.objective import Objective, ObjectiveConfig
from distill.perceptual import perceptual_terms
from distill.phones.classifier import PhoneClassifier, PhoneConfig
from distill.spectral import mel_distance, power_loss
from tests.conftest import AUDIO, random_mel, random_wav, small_student, small_teacher
from wavenet.arguments import from_dict
from wavenet.data import Batch
from wavenet.emphasis import pre_emphasis
from wavenet.errors import UserError
from wavenet.features import LogMel


def evaluate(weights: dict[str, float], kind: str = "mol", noise: str = "logistic", start: int = 7, **settings):
    student, teacher, mel = small_student(noise), small_teacher(kind), random_mel(2, 6)
    config = ObjectiveConfig(weights=weights, draws=4, stft_sizes=[32, 16], **settings)
    objective = Objective(config, 0.9, 2.0, -9.0, start, log_mel=student.log_mel)
    sample = student(student.noise(mel, generator=torch.Generator().manual_seed(0)), mel)
    scored, judged = (teacher(sample.wav, mel, first=t) if objective.needs_teacher else None for t in (start, 0))
    terms = objective(sample, scored, random_wav(2, 6), torch.Generator().manual_seed(1))
    return terms, sample, judged


def test_loss_is_the_weighted_sum_of_the_named_terms():
    terms, _, _ = evaluate({"kl": 2.0, "stft": 3.0})
    assert set(terms) >= {
        "loss",
        "loss/kl",
        "loss/stft",
        "kl/kl",
        "kl/entropy",
        "kl/cross_entropy",
        "stft/32",
        "stft/16",
    }
    torch.testing.assert_close(terms["loss"], terms["loss/kl"] + terms["loss/stft"])
    torch.testing.assert_close(terms["loss/kl"], 2 * terms["kl/kl"])
    torch.testing.assert_close(terms["loss/stft"], 3 * (terms["stft/32"] + terms["stft/16"]) / 2)
    torch.testing.assert_close(terms["kl/kl"], terms["kl/cross_entropy"] - terms["kl/entropy"])


def test_kl_is_the_estimators_over_the_scored_samples():
    terms, sample, judged = evaluate({"kl": 1.0}, start=7)
    crossed = kl.cross_entropy(sample.distribution, judged, 4, torch.Generator().manual_seed(1))
    expected = crossed[:, 7:].mean() - kl.entropy(sample.distribution)[:, 7:].mean()
    torch.testing.assert_close(terms["kl/kl"], expected)
    assert not any(name.startswith("stft") for name in terms)


def test_gaussian_pair_uses_the_closed_form_and_may_have_the_regulariser():
    terms, sample, judged = evaluate({"kl": 1.0, "regulariser": 4.0}, "gaussian", "normal")
    torch.testing.assert_close(terms["kl/kl"], kl.kl_gaussian(sample.distribution, judged)[:, 7:].mean())
    torch.testing.assert_close(terms["loss/regulariser"], 4 * terms["kl/regulariser"])


def test_power_is_the_power_loss_of_emphasised_signals():
    terms, sample, _ = evaluate({"power": 2.0}, start=7, power_size=32)
    ours, theirs = (pre_emphasis(wav, 0.9, 2.0)[:, 7:] for wav in (sample.wav, random_wav(2, 6)))
    torch.testing.assert_close(terms["loss"], 2 * power_loss(ours, theirs, 32))
    assert set(terms) == {"loss", "loss/power", "power/32"}


@pytest.mark.parametrize("start", [3, 8])
def test_mel_is_the_distance_of_log_mels_inside_the_scored_part(start):
    """Also where the scored part begins between the frames of the conditioning."""
    terms, sample, judged = evaluate({"mel": 2.0}, start=start)
    assert judged is None
    log_mel = LogMel(AUDIO)
    # Frame i of a signal sees its samples 16 i - 24 to 16 i + 40: of these 80, frames 2 and 3 see start to start + 80.
    first = start - 8
    wavs = (torch.nn.functional.pad(wav, (16, 0))[:, 16 + first :][:, :96] for wav in (sample.wav, random_wav(2, 6)))
    ours, theirs = (log_mel(wav[:, : len(wav[0]) // 16 * 16].detach().to(log_mel.window.dtype)) for wav in wavs)
    expected = 2 * (ours - theirs)[..., 2:4].abs().mean()
    torch.testing.assert_close(terms["loss"].to(expected.dtype), expected)
    assert set(terms) == {"loss", "loss/mel", "mel/nats"}


def test_mel_is_a_level_in_nats_and_has_a_gradient():
    log_mel = LogMel(AUDIO)
    wav = random_wav(2, 6).to(log_mel.window.dtype)
    assert float(mel_distance(wav, wav, log_mel)) == 0
    gain = torch.tensor(1.5, requires_grad=True)
    distance = mel_distance(gain * wav, wav, log_mel)
    torch.testing.assert_close(distance.detach(), torch.tensor(1.5).log().to(distance.dtype), atol=1e-3, rtol=0)
    distance.backward()
    torch.testing.assert_close(gain.grad, torch.tensor(1 / 1.5), atol=1e-3, rtol=0)


def test_log_ratio_is_taken_over_the_scored_samples():
    """log q - log p_t of the sample itself, from `start` on; the estimator of the whole signal where start is 0."""
    terms, sample, judged = evaluate({"kl": 1.0}, start=7, kl_estimator="log_ratio")
    log_q = sample.distribution.log_prob(sample.wav)[:, 7:]
    torch.testing.assert_close(terms["kl/kl"], (log_q - judged.log_density(sample.wav)[:, 7:]).mean())
    torch.testing.assert_close(terms["kl/entropy"], -log_q.mean())
    terms, sample, judged = evaluate({"kl": 1.0}, start=0, kl_estimator="log_ratio")
    base = small_student().base(sample.wav)
    whole = kl.log_ratio(base, sample.noise, sample.log_det, judged, sample.wav)
    torch.testing.assert_close(terms["kl/kl"], (whole / sample.wav.shape[1]).mean())


def small_phones(sample_rate: int = 8000) -> PhoneClassifier:
    torch.manual_seed(0)
    audio = dataclasses.replace(AUDIO, sample_rate=sample_rate)
    sizes = {"channels": [4, 4], "strides": [4, 4], "kernel_sizes": [8, 4], "context_layers": 1}
    return PhoneClassifier(PhoneConfig(audio, **sizes)).double().eval()


def test_perceptual_term_is_feature_plus_weighted_style():
    phones, weights = small_phones(), {"perceptual": 5.0}
    step = Distillation(small_teacher(), ObjectiveConfig(weights, style_weight=3.0), 96, phones=phones)
    student, batch = small_student().eval(), Batch(random_wav(2, 6), random_mel(2, 6), None)
    terms = step.loss(student, batch, torch.Generator().manual_seed(0))
    sample = student(student.noise(batch.mel, generator=torch.Generator().manual_seed(0)), batch.mel)
    seen = perceptual_terms(phones, sample.wav[:, step.start :], batch.wav[:, step.start :])
    expected = 5 * (seen["perceptual/feature"] + 3 * seen["perceptual/style"])
    torch.testing.assert_close(terms["loss"], expected)
    torch.testing.assert_close(terms["perceptual/style"], seen["perceptual/style"])
    terms["loss"].backward()
    assert all(parameter.grad is None for parameter in phones.parameters())
    assert float(student.flows[0].stack.input.weight.grad.abs().max()) > 0


def test_perceptual_term_and_its_classifier_come_together():
    both = {"perceptual": 1.0}
    for weights, phones, message in (
        (both, None, "objective.weights: found 'perceptual', expected a phone classifier beside it, --phones RUN"),
        ({"kl": 1.0}, small_phones(), "--phones: found 'a classifier', expected none without the term perceptual"),
        (both, small_phones(16000), "--phones: found 'a classifier of 16000 Hz', expected one of the teacher's 8000"),
    ):
        with pytest.raises(UserError) as caught:
            Distillation(small_teacher(), ObjectiveConfig(weights), 96, phones=phones)
        assert message in str(caught.value)


def test_windows_must_fit_what_a_crop_scores():
    with pytest.raises(UserError, match=r"objective\.power_size: found 1024, expected at most"):
        Distillation(small_teacher(), ObjectiveConfig({"power": 1.0}), 96)
    with pytest.raises(UserError, match=r"audio\.n_fft: found 64, expected at most"):
        Distillation(small_teacher(), ObjectiveConfig({"mel": 1.0}), 48)


def test_stft_alone_asks_for_no_teacher():
    terms, _, judged = evaluate({"stft": 1.0})
    assert judged is None
    assert set(terms) == {"loss", "loss/stft", "stft/32", "stft/16"}


def test_regulariser_without_a_gaussian_pair_is_refused():
    with pytest.raises(UserError, match=r"objective\.weights: found 'regulariser', expected terms that this pair has"):
        evaluate({"kl": 1.0, "regulariser": 4.0})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": {"kl": 1.0, "sfft": 1.0}}, "objective.weights: found 'sfft', expected terms out of kl"),
        ({"weights": {}}, "objective.weights: found {}, expected at least one term"),
        ({"weights": {"kl": 0.0}}, "expected positive weights, finite"),
        ({"weights": {"kl": float("inf")}}, "expected positive weights, finite"),
        ({"stft_sizes": [30]}, "objective.stft_sizes: found"),
        ({"draws": 0}, "objective.draws: found 0"),
        ({"power_size": 30}, "objective.power_size: found 30"),
        ({"weights": {"contrastive": 1.0}}, "expected kl beside contrastive"),
        ({"contrastive_gamma": 0.0}, "objective.contrastive_gamma: found 0.0, expected a positive number"),
        ({"contrastive_cap": float("inf")}, "objective.contrastive_cap: found inf"),
        ({"kl_estimator": "ratio"}, "kl_estimator"),
    ],
)
def test_misspelt_or_senseless_settings_are_named(values, message):
    with pytest.raises(UserError) as caught:
        from_dict(ObjectiveConfig, values)
    assert message in str(caught.value)


def test_fraction_of_scales_at_the_floor():
    student, teacher, mel = small_student(), small_teacher(), random_mel(1, 6)
    sample = student(student.noise(mel), mel)
    judged = teacher(sample.wav, mel)
    median = float(sample.distribution.log_scale.detach().median())
    objective = Objective(ObjectiveConfig({"kl": 1.0}, 2), 0.9, 2.0, median - 0.1, 0)
    assert float(objective(sample, judged, sample.wav, None)["student/scales_at_floor"]) == pytest.approx(0.5, abs=0.02)


def test_distillation_shows_the_teacher_the_students_sample_alone():
    """Another recording under the same mel changes the STFT terms and nothing of the KL."""
    student, teacher, mel = small_student(), small_teacher(), random_mel(2, 6)
    step = Distillation(teacher, ObjectiveConfig({"kl": 1.0, "stft": 1.0}, 4, [32]), 96)
    one, two = (
        step.loss(student, Batch(random_wav(2, 6, seed), mel, None), torch.Generator().manual_seed(0))
        for seed in (1, 2)
    )
    assert float(one["kl/cross_entropy"]) == float(two["kl/cross_entropy"])
    assert float(one["stft/32"]) != float(two["stft/32"])


def test_gradient_reaches_the_student_through_the_frozen_teacher():
    student, teacher, mel = small_student(), small_teacher(), random_mel(2, 6)
    step = Distillation(teacher, ObjectiveConfig({"kl": 1.0}, 4), 96)
    step.loss(student, Batch(random_wav(2, 6), mel, None), torch.Generator().manual_seed(0))["loss"].backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    first = student.flows[0].stack.input.weight.grad
    assert first is not None
    assert float(first.abs().max()) > 0
    assert not teacher.training
