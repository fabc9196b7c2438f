"""Learning: a teacher reaches the known entropy rate of a source; a student reaches a known teacher."""

import math

import torch

from distill import kl
from distill.config import StudentConfig
from distill.distillation import Distillation
from distill.objective import ObjectiveConfig
from distill.student import Student
from tests.conftest import AUDIO, UPSAMPLE
from wavenet.config import DistributionConfig, StackConfig, TeacherConfig
from wavenet.data import Batch
from wavenet.distributions.gaussian import Gaussian
from wavenet.likelihood import likelihood_loss
from wavenet.teacher import Teacher

STACK = StackConfig(cycles=1, layers=2, residual_channels=8, gate_channels=16, skip_channels=8)
PHI, SIGMA = 0.8, 0.05


def teacher_config(kind: str) -> TeacherConfig:
    # Gain 1 / rms of the source; no pre-emphasis, so that the network itself has to find the predictor.
    gain = math.sqrt(1 - PHI**2) / SIGMA
    return TeacherConfig(AUDIO, STACK, UPSAMPLE, DistributionConfig(kind, components=2), pre_emphasis=0.0, gain=gain)


def autoregression(rows: int, frames: int, generator: torch.Generator) -> torch.Tensor:
    """x_t = phi x_{t-1} + sigma e_t, stationary: (rows, frames * hop)."""
    noise = torch.randn(rows, frames * AUDIO.hop_length, generator=generator)
    samples = [noise[:, 0] * SIGMA / math.sqrt(1 - PHI**2)]
    for innovation in noise[:, 1:].unbind(1):
        samples.append(PHI * samples[-1] + SIGMA * innovation)
    return torch.stack(samples, 1)


def train_teacher(kind: str, steps: int) -> Teacher:
    torch.manual_seed(0)
    teacher, generator = Teacher(teacher_config(kind)), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(teacher.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        wav = autoregression(16, 8, generator)
        loss = likelihood_loss(teacher, Batch(wav, torch.zeros(16, AUDIO.n_mels, 8), None))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return teacher.eval()


def held_out_density(teacher: Teacher) -> float:
    wav = autoregression(200, 20, torch.Generator().manual_seed(1))
    with torch.no_grad():
        distribution = teacher(wav, torch.zeros(200, AUDIO.n_mels, 20))
        return -float(distribution.log_density(wav)[:, 8:].mean())


def test_teacher_reaches_the_entropy_rate_of_an_autoregression():
    """h = log(sigma sqrt(2 pi e)); 62 k held-out samples put the standard error at 0.003 nats."""
    entropy_rate = math.log(SIGMA * math.sqrt(2 * math.pi * math.e))
    for kind, steps in (("gaussian", 300), ("mol", 300)):
        found = held_out_density(train_teacher(kind, steps))
        assert entropy_rate - 0.01 < found < entropy_rate + 0.02, kind


class KnownTeacher(Teacher):
    """An autoregression of order 1 as a teacher: x_t ~ N(phi x_{t-1}, sigma), known in closed form."""

    def forward(self, wav, mel, speaker=None, pitch=None, offset=None, first=0):
        past = torch.nn.functional.pad(wav, (1, 0))[:, first:-1]
        return Gaussian(PHI * past, torch.full_like(past, math.log(SIGMA)))


def test_student_reaches_a_known_teacher():
    """KL(p_s || p_t) < 0.01 nats/sample, in closed form on fresh samples, after 600 steps of KL alone."""
    torch.manual_seed(0)
    teacher = KnownTeacher(teacher_config("gaussian"))
    config = StudentConfig(
        AUDIO, [STACK, STACK], UPSAMPLE, noise="normal", pre_emphasis=0.0, gain=teacher.gain, initial_log_scale=-1.0
    )
    student = Student(config)
    step = Distillation(teacher, ObjectiveConfig({"kl": 1.0}), 128)
    optimizer = torch.optim.Adam(student.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
    generator = torch.Generator().manual_seed(0)
    batch = Batch(torch.zeros(16, 128), torch.zeros(16, AUDIO.n_mels, 8), None)
    first = None
    for _ in range(600):
        loss = step.loss(student, batch, generator)["loss"]
        first = float(loss.detach()) if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert first is not None
    assert first > 0.2
    mel = torch.zeros(64, AUDIO.n_mels, 16)
    with torch.no_grad():
        sample = student(student.noise(mel, generator=torch.Generator().manual_seed(9)), mel)
        divergence = kl.kl_gaussian(sample.distribution, teacher(sample.wav, mel))
    # From the receptive field on: this student has no state before the first sample, the source is stationary.
    assert 0 <= float(divergence[:, 16:].mean()) < 0.01
