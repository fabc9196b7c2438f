"""Every sequential sampler equals the naive one at the same noise, and the teacher-forced pass on its own output."""

import pytest
import torch

from tests.conftest import random_mel, small_student, small_teacher
from wavenet import teacher as teachers
from wavenet.errors import UserError
from wavenet.teacher import SAMPLERS

ON_A_GPU = {"graph", "persistent"}  # on a CPU: tests/test_graph.py, tests/test_persistent.py


def methods(*without: str) -> list:
    """Every method as a parameter; those that need a GPU are skipped where there is none."""
    names = sorted(set(SAMPLERS) - set(without))
    return [pytest.param(name, marks=pytest.mark.gpu if name in ON_A_GPU else ()) for name in names]


def draw(teacher, mel, method, *arguments, speaker=None, **settings):
    """teacher.sample on the device that the method is for."""
    device = "cuda" if method in ON_A_GPU else "cpu"
    speaker = None if speaker is None else speaker.to(device)
    wav = teacher.to(device).sample(mel.to(device), method, *arguments, speaker=speaker, **settings)
    teacher.cpu()
    return wav.cpu()


@pytest.mark.parametrize("kind", ["mol", "gaussian", "mulaw"])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4])
@pytest.mark.parametrize("method", methods("naive"))
def test_every_method_equals_naive(kind, kernel_size, method):
    teacher, mel = small_teacher(kind, kernel_size=kernel_size), random_mel(2, 5)
    naive, other = (draw(teacher, mel, name, torch.Generator().manual_seed(7)) for name in ("naive", method))
    torch.testing.assert_close(other, naive, rtol=0, atol=1e-9)
    assert float(naive.std()) > 0.01


@pytest.mark.parametrize("kind", ["mol", "gaussian", "mulaw"])
@pytest.mark.parametrize("method", methods())
def test_samples_reproduce_under_teacher_forcing(kind, method):
    """One parallel pass over the output, with the sampler's noise, must give the output back."""
    teacher, mel = small_teacher(kind), random_mel(2, 4)
    wav = draw(teacher, mel, method, torch.Generator().manual_seed(3))
    uniforms = torch.rand(
        2, wav.shape[1], teacher.noise_channels, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    torch.testing.assert_close(teacher(wav, mel).transform(uniforms), wav, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", methods("naive"))
def test_speakers_are_heard(method):
    teacher, mel = small_teacher(speakers=2), random_mel(2, 3)
    speaker = torch.tensor([0, 1])
    naive, other = (
        draw(teacher, mel, name, torch.Generator().manual_seed(0), speaker=speaker) for name in ("naive", method)
    )
    torch.testing.assert_close(other, naive, rtol=0, atol=1e-9)
    swapped = draw(teacher, mel, method, torch.Generator().manual_seed(0), speaker=speaker.flip(0))
    assert float((swapped - other).abs().max()) > 1e-4


@pytest.mark.parametrize("kind", ["mol", "gaussian", "mulaw"])
def test_seed_and_temperature(kind):
    teacher, mel = small_teacher(kind), random_mel(1, 6)

    def seeded(seed: int, temperature: float = 1.0):
        return teacher.sample(mel, generator=torch.Generator().manual_seed(seed), temperature=temperature)

    assert torch.equal(seeded(1), seeded(1))
    assert float((seeded(1) - seeded(2)).abs().max()) > 1e-3
    distance = (seeded(1, 0.0) - seeded(2, 0.0)).abs().max()
    # At temperature 0 a Gaussian or a class has no noise left; a mixture still draws its component.
    assert kind == "mol" or float(distance) == 0.0


def test_first_samples_follow_the_distribution():
    """Many rows at once: the first sample of each is a draw from one known distribution (Kolmogorov-Smirnov)."""
    teacher = small_teacher("gaussian")
    mel = random_mel(1, 1).expand(4000, -1, -1)
    first = teacher.sample(mel, generator=torch.Generator().manual_seed(0))[:, 0]
    d = teacher(torch.zeros(1, 16, dtype=torch.float64), mel[:1])
    cdf = torch.distributions.Normal(d.loc[0, 0], d.scale[0, 0]).cdf(first.sort().values)
    gap = (cdf - torch.arange(1, 4001, dtype=torch.float64) / 4000).abs().max()
    assert float(gap) < 1.95 / 4000**0.5  # one in a thousand


def test_unknown_method_and_temperature_are_named():
    teacher, student, mel = small_teacher(), small_student(), random_mel()
    with pytest.raises(UserError, match="method: found 'fast', expected one of auto, naive, cached, fused"):
        teacher.sample(mel, "fast")
    for model in (teacher, student):
        with pytest.raises(UserError, match="temperature: found -1"):
            model.sample(mel, temperature=-1)


@pytest.mark.parametrize("method", sorted(ON_A_GPU))
def test_a_cpu_is_refused_by_what_needs_a_gpu(method):
    with pytest.raises(UserError, match=f"method {method}: found a model on cpu, expected one on a CUDA GPU"):
        small_teacher().sample(random_mel(1, 2), method)


def test_student_sample_is_its_forward_pass():
    student, mel = small_student(), random_mel()
    wav = student.sample(mel, generator=torch.Generator().manual_seed(5))
    noise = student.noise(mel, generator=torch.Generator().manual_seed(5))
    cold = student.sample(mel, temperature=0.0)
    torch.testing.assert_close(wav, student(noise, mel).wav, rtol=1e-10, atol=1e-10)
    with torch.no_grad():  # the same schedule of the same products
        assert torch.equal(wav, student(noise, mel).wav)
        assert torch.equal(cold, student(torch.zeros_like(noise), mel).wav)


@pytest.mark.parametrize("chunk_length", [1, 16, 48, 100])
def test_student_in_chunks_is_the_student_in_one_pass(chunk_length):
    student, mel = small_student(flows=3), random_mel(2, 9)
    whole = student.sample(mel, generator=torch.Generator().manual_seed(5))
    assert whole.shape[1] > student.receptive_field
    student.chunk_length = chunk_length
    in_chunks = student.sample(mel, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(in_chunks, whole, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("reason", "expected"), [("", "fused"), ("no numba", "cached")])
def test_auto_asks_for_the_compiler_alone_wherever_the_model_is(reason, expected, monkeypatch):
    """A device of which no sampler knows anything stands for a GPU."""
    called = []
    for name in teachers.SAMPLERS:
        monkeypatch.setitem(teachers.SAMPLERS, name, lambda *arguments, name=name: called.append(name))
    monkeypatch.setattr(teachers, "unusable", lambda: reason)
    small_teacher().to("meta").sample(random_mel(1, 2).to("meta"))
    assert called == [expected]
