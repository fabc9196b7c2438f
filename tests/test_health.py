"""Each fault, injected into what the monitor sees, is named; a healthy student is not; when it warns and stops."""

import dataclasses
import math

import pytest
import torch

from distill.diagnoses import DIAGNOSES, FATAL, Case, HealthConfig, examine
from distill.distillation import Distillation
from distill.health import Health
from distill.objective import Objective, ObjectiveConfig
from distill.student import Sample
from distill.vitals import mean_signs, noise_signs, teacher_noise, vital_signs
from tests.conftest import random_mel, random_wav, small_student, small_teacher
from wavenet.arguments import from_dict
from wavenet.config import AudioConfig
from wavenet.data import Batch, load_clip, open_corpus
from wavenet.distributions.gaussian import Gaussian
from wavenet.distributions.logistic import MixtureLogistic
from wavenet.errors import UserError
from wavenet.monitor import gradient_norms
from wavenet.pitch.tracker import track

SPEECH = AudioConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=40, f_max=4000.0)
FLOOR = -9.0


@pytest.fixture(scope="module")
def speech():
    wav = load_clip(open_corpus("bundled", SPEECH).dev[0], SPEECH)[: 64 * 400].double()
    return wav, track(wav, 8000, 64)


def noise_like(wav: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return torch.randn(len(wav), generator=torch.Generator().manual_seed(seed), dtype=wav.dtype)


def whispered(wav: torch.Tensor) -> torch.Tensor:
    """Noise with the recording's envelope in time and its spectrum, and its level."""
    envelope = torch.nn.functional.avg_pool1d(wav.abs()[None, None], 401, 1, 200)[0, 0]
    spectrum = torch.nn.functional.avg_pool1d(torch.fft.rfft(wav).abs()[None, None], 201, 1, 100)[0, 0]
    shaped = torch.fft.irfft(torch.fft.rfft(noise_like(wav) * envelope) * spectrum, len(wav))
    return shaped * wav.norm() / shaped.norm()


def low_passed(wav: torch.Tensor, hertz: float) -> torch.Tensor:
    spectrum = torch.fft.rfft(wav)
    spectrum[torch.fft.rfftfreq(len(wav), 1 / 8000) > hertz] = 0
    return torch.fft.irfft(spectrum, len(wav))


def one_nan(wav: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.arange(len(wav)) == 100, torch.nan, wav)


SAMPLES = {
    "the recording with noise 40 dB under it": (lambda wav: wav + 0.01 * wav.std() * noise_like(wav), []),
    "a level 3 dB off": (lambda wav: 0.7 * wav, []),
    "white noise": (lambda wav: wav.std() * noise_like(wav), ["whispering", "hiss"]),
    "a whisper": (whispered, ["whispering"]),
    "nothing above 1 kHz": (lambda wav: low_passed(wav, 1000), ["band collapse"]),
    "hiss at -40 dBFS": (lambda wav: wav + 0.01 * noise_like(wav), ["hiss"]),
    "a sample that is not a number": (one_nan, ["not finite"]),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_faults_of_the_sample_are_named(speech, name):
    wav, f0 = speech
    damage, expected = SAMPLES[name]
    found = examine(HealthConfig(), Case(vital_signs(damage(wav), wav, f0, SPEECH), FLOOR))
    assert [diagnosis.name for diagnosis in found] == expected


def test_signs_are_what_they_say(speech):
    wav, f0 = speech
    signs = vital_signs(0.5 * wav, wav, f0, SPEECH)
    for band in (0, 500, 1000, 2000):
        assert signs[f"health/band/{band}"] == pytest.approx(-6.02, abs=0.1)
    assert signs["health/noise_floor"] == pytest.approx(signs["health/noise_floor_recording"] - 6.02, abs=0.01)
    assert signs["health/voiced_autocorrelation"] == pytest.approx(
        signs["health/voiced_autocorrelation_recording"], abs=1e-3
    )


def test_band_that_the_recording_lacks_is_not_compared(speech):
    """Resampled from a lower rate: noise at -80 dB there, or none, is no collapse and no excess."""
    _, f0 = speech
    wav = low_passed(speech[0], 1900)
    faint = wav + 1e-4 * wav.std() * noise_like(wav)
    for ours, theirs in ((wav, faint), (faint, wav)):
        assert abs(vital_signs(ours, theirs, f0, SPEECH)["health/band/2000"]) < 3


def test_signs_of_silence_and_of_short_clips_are_no_evidence(speech):
    for wav in (torch.zeros(640), 0.1 * noise_like(torch.zeros(64))):
        signs = vital_signs(wav, wav, track(wav, 8000, 64), SPEECH)
        assert examine(HealthConfig(), Case(signs, FLOOR)) == []


def test_mean_over_clips_leaves_out_what_is_not_defined():
    means = mean_signs([{"a": 1.0, "b": math.nan}, {"a": 3.0, "b": 5.0}, {"c": math.nan}])
    assert means["a"] == 2.0
    assert means["b"] == 5.0
    assert math.isnan(means["c"])


def mixture(rows: int) -> MixtureLogistic:
    generator = torch.Generator().manual_seed(3)
    logits, loc, log_scale = torch.randn(3, rows, 50, 4, generator=generator, dtype=torch.float64)
    return MixtureLogistic(logits, loc, log_scale - 2)


def gaussian(rows: int) -> Gaussian:
    return Gaussian(*torch.randn(2, rows, 50, generator=torch.Generator().manual_seed(4), dtype=torch.float64))


@pytest.mark.parametrize("make", [mixture, gaussian])
def test_back_inferred_noise_of_the_teachers_own_draws_is_standard_normal(make):
    law = make(400)
    uniforms = torch.rand(400, 50, law.noise_channels, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    noise = teacher_noise(law, law.transform(uniforms)).flatten().sort().values
    expected = torch.distributions.Normal(0.0, 1.0).cdf(noise)
    steps = torch.arange(1, len(noise) + 1, dtype=torch.float64) / len(noise)
    assert float((expected - steps).abs().max()) < 1.95 / len(noise) ** 0.5  # Kolmogorov-Smirnov, 0.1%


@pytest.mark.parametrize("kind", ["mol", "gaussian"])
def test_a_teacher_recognises_its_own_sample_and_not_one_of_another_scale(kind):
    teacher, mel = small_teacher(kind), random_mel(16, 6)
    teacher.gain = 30.0  # far from the ends of the grid, where draws are clipped
    wav = teacher.sample(mel, generator=torch.Generator().manual_seed(0))
    signs = noise_signs(teacher(wav, mel), wav)
    assert signs["health/teacher_noise_mean"] == pytest.approx(0, abs=0.08)
    assert signs["health/teacher_noise_variance"] == pytest.approx(1, abs=0.12)
    assert examine(HealthConfig(), Case(signs, FLOOR)) == []
    for factor in (4.0, 0.25):
        law = teacher(wav, mel)
        with torch.no_grad():
            law.log_scale = law.log_scale - math.log(factor)
            law.loc = law.loc if kind == "gaussian" else law.loc + (1 - 1 / factor) * (law.mean[..., None] - law.loc)
        found = examine(HealthConfig(), Case(noise_signs(law, wav), FLOOR))
        assert [diagnosis.name for diagnosis in found] == ["teacher noise off"]


def law_of(log_scale: float) -> tuple[Sample, Gaussian, torch.Tensor]:
    """A Gaussian student of one scale everywhere, under a teacher of the same law."""
    noise = torch.randn(2, 200, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    law = Gaussian(torch.zeros_like(noise), torch.full_like(noise, log_scale))
    wav = noise * math.exp(log_scale)
    return Sample(wav, law, noise, law.log_scale.sum(1)), law, wav


def judged_terms(log_scale: float, teacher_log_scale: float | None = None) -> dict[str, float]:
    sample, law, wav = law_of(log_scale)
    teacher = law if teacher_log_scale is None else law_of(teacher_log_scale)[1]
    terms = Objective(ObjectiveConfig({"kl": 1.0}), 0.9, 1.0, FLOOR, 0)(sample, teacher, wav, None)
    return {name: float(value) for name, value in terms.items()} | noise_signs(teacher, wav)


def names_of(scalars: dict[str, float], best: float = math.inf) -> list[str]:
    return [diagnosis.name for diagnosis in examine(HealthConfig(), Case(scalars, FLOOR, best))]


def test_matched_gaussian_pair_is_healthy_and_collapsed_scales_are_named():
    assert names_of(judged_terms(-4.0)) == []
    assert names_of(judged_terms(FLOOR)) == ["scales at the floor"]
    assert names_of(judged_terms(-20.0)) == ["entropy collapse", "scales at the floor"]
    assert names_of(judged_terms(-4.0, -6.0), best=0.5) == ["entropy collapse", "teacher noise off"]


def test_high_divergence_is_a_collapse_only_where_it_was_lower_before():
    start = {"kl/kl": 40.0, "kl/entropy": -3.0, "kl/cross_entropy": 37.0}
    assert names_of(start) == []
    assert names_of(start, best=30.0) == []
    assert names_of(start, best=2.0) == ["entropy collapse"]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"kl": 1.0, "stft": 1.0}, []),
        ({"kl": 1e4, "stft": 1.0}, ["terms out of balance"]),
        ({"kl": 1e-4, "stft": 1e2}, ["teacher ignored"]),
        ({"kl": 1.0}, []),
    ],
)
def test_terms_whose_gradients_drown_the_others_are_named(weights, expected):
    student, mel = small_student(), random_mel(2, 6)
    step = Distillation(small_teacher(), ObjectiveConfig(weights, 4, [32]), 96)
    terms = step.loss(student, Batch(random_wav(2, 6), mel, None), torch.Generator().manual_seed(0))
    health = Health(HealthConfig(after=0, persist=1), FLOOR)
    health.observe({name: float(norm) for name, norm in gradient_norms(terms, student.parameters()).items()})
    verdict = health.judge(1, {})
    assert [warning.partition(":")[0] for warning in verdict.warnings] == expected


SICK = {"health/voiced_autocorrelation": 0.4, "health/voiced_autocorrelation_recording": 0.9, "health/band/0": 0.0}
FATALLY = {"health/finite": 0.5}


def test_warns_once_after_the_start_and_only_of_what_persists():
    health = Health(HealthConfig(after=100, persist=2), FLOOR)
    said = [(step, health.judge(step, signs)) for step, signs in (
        (50, SICK), (99, SICK), (100, SICK), (150, {}), (200, SICK), (250, SICK), (300, SICK), (350, {}), (400, SICK),
        (450, SICK),
    )]  # fmt: skip
    assert [step for step, verdict in said if verdict.warnings] == [250, 450]
    assert all(verdict.stop is None for _, verdict in said)
    assert [verdict.scalars["health/diagnosis/whispering"] for _, verdict in said] == [0, 0, 1, 0, 1, 2, 3, 0, 1, 2]
    warning = said[5][1].warnings[0]
    assert warning.startswith("whispering: voiced autocorrelation 0.40, the recordings' 0.90, ")
    assert "raise the weight of stft" in warning


@pytest.mark.parametrize(
    ("policy", "signs", "stopped"),
    [("warn", SICK, None), ("stop", SICK, "whispering"), ("warn", FATALLY, "not finite"), ("stop", {}, None)],
)
def test_only_collapse_stops_a_run_unless_everything_shall(policy, signs, stopped):
    health = Health(HealthConfig(after=0, persist=2, on_collapse=policy), FLOOR)
    assert health.judge(1, signs).stop is None
    verdict = health.judge(2, signs)
    names = [said.partition(":")[0] for said in (verdict.stop, *verdict.warnings) if said]
    assert (verdict.stop is not None) == (stopped is not None)
    assert names == ([stopped] if stopped else ["whispering"] if signs else [])  # said once


def test_state_goes_on_where_it_was():
    one, two = (Health(HealthConfig(after=0, persist=3), FLOOR) for _ in range(2))
    rising = {"kl/kl": 1.0}, {"kl/kl": 9.0, "health/finite": 1.0}
    for scalars in (*rising, rising[1]):
        one.judge(1, scalars)
    one.observe({"health/grad/kl": 9.0})
    two.restore(one.state())
    for health in (one, two):
        assert (health.judge(4, rising[1]).stop or "").startswith(
            "entropy collapse: KL of 9.00 nats/sample, 1.00 at its"
        )
    assert two.state() == one.state()


def test_every_diagnosis_says_what_to_do():
    assert set(FATAL) < set(DIAGNOSES)
    assert all(len(advice) > 20 for _, advice in DIAGNOSES.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"persist": 0}, "health.persist: found 0, expected at least 1"),
        ({"on_collapse": "panic"}, "on_collapse"),
        ({"gradient_ratio": 1.0}, "health.gradient_ratio: found 1.0, expected more than 1"),
        ({"every": -1}, "health.every: found -1"),
        ({"hiss": 0.0}, "health.hiss: found 0.0, expected a positive number"),
    ],
)
def test_senseless_settings_are_named(values, message):
    with pytest.raises(UserError) as caught:
        from_dict(HealthConfig, values)
    assert message in str(caught.value)


def test_validation_measures_the_held_out_samples():
    student, teacher = small_student().float(), small_teacher().float()
    corpus = open_corpus("bundled", teacher.config.audio)
    corpus = dataclasses.replace(corpus, dev=corpus.dev[:1])
    step = Distillation(teacher, ObjectiveConfig({"kl": 1.0, "stft": 1.0}, 2, [32]), 128)
    found = step.validate(student, corpus, 1)
    assert found.health["health/finite"] == 1.0
    assert found.health["health/voiced_autocorrelation_recording"] > 0.8
    assert found.health["health/voiced_autocorrelation"] < 0.5
    assert math.isfinite(found.health["health/teacher_noise_variance"])
    assert {f"health/band/{hertz}" for hertz in (0, 500, 1000, 2000)} <= set(found.health)
    verdict = step.monitor(HealthConfig(after=0, persist=1)).judge(1, found.scalars | found.health)
    assert verdict.warnings
