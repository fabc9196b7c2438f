"""Shared builders: small networks in float64, so that mathematics is compared to ten digits."""

from __future__ import annotations

import pytest
import torch

from distill.config import SourceFilterConfig, StudentConfig
from distill.student import Student
from wavenet.config import AudioConfig, DistributionConfig, PitchConfig, StackConfig, TeacherConfig, UpsampleConfig
from wavenet.teacher import Teacher

AUDIO = AudioConfig(sample_rate=8000, n_fft=64, win_length=64, hop_length=16, n_mels=6, f_max=4000.0, log_clamp=1e-3)
UPSAMPLE = UpsampleConfig(channels=5, layers=2)
PITCH = PitchConfig(audio=AUDIO, channels=4, layers=1, kernel_size=3, bins=8)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where there is no GPU, what is marked so is skipped, and says why."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU, found none"))


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def small_stack(kernel_size: int = 2, cycles: int = 2, layers: int = 3) -> StackConfig:
    """A stack of a few channels."""
    return StackConfig(cycles, layers, kernel_size, residual_channels=4, gate_channels=6, skip_channels=5)


def randomise(model: torch.nn.Module, seed: int = 0, scale: float = 0.4) -> torch.nn.Module:
    """Weights far from their gentle start, so that every path of the network matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("kernel"):
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model


def small_teacher(
    kind: str = "mol",
    speakers: int = 0,
    kernel_size: int = 2,
    bits: int | None = None,
    names: list[str] | None = None,
    source: bool = False,
    linear_prediction: int = 0,
) -> Teacher:
    """A randomised float64 teacher of a few thousand parameters."""
    config = TeacherConfig(
        audio=AUDIO,
        stack=small_stack(kernel_size),
        upsample=UPSAMPLE,
        distribution=DistributionConfig(kind, components=3, bits=bits or (6 if kind == "mulaw" else 16)),
        pre_emphasis=0.0 if kind == "mulaw" else 0.9,
        gain=2.0,
        linear_prediction=linear_prediction,
        source=source,
        pitch=PITCH,
        speakers=speakers,
        speaker_names=names or [],
        speaker_channels=3,
    )
    torch.manual_seed(0)
    model = randomise(Teacher(config).double(), scale=0.2)
    assert isinstance(model, Teacher)
    return model.eval()


def small_student(
    noise: str = "logistic",
    flows: int = 2,
    speakers: int = 0,
    kernel_size: int = 2,
    names: list[str] | None = None,
    prior: str = "none",
    sharpening: int = 0,
) -> Student:
    """A randomised float64 student of a few flows."""
    config = StudentConfig(
        audio=AUDIO,
        flows=[small_stack(kernel_size, cycles=1)] * flows,
        upsample=UPSAMPLE,
        noise=noise,
        prior=prior,
        source_filter=SourceFilterConfig(taps=12, channels=4, correction_points=5, sharpening=sharpening),
        pitch=PITCH,
        gain=2.0,
        speakers=speakers,
        speaker_names=names or [],
        speaker_channels=3,
    )
    torch.manual_seed(1)
    model = randomise(Student(config).double(), seed=1, scale=0.2)
    assert isinstance(model, Student)
    return model.eval()


def random_mel(batch: int = 2, frames: int = 3, seed: int = 0) -> torch.Tensor:
    """mel (B, M, F) in float64."""
    return torch.randn(batch, AUDIO.n_mels, frames, generator=torch.Generator().manual_seed(seed)).double()


def random_wav(batch: int = 2, frames: int = 3, seed: int = 0) -> torch.Tensor:
    """wav (B, T) in float64, well inside [-1, 1], on the 16-bit grid's scale."""
    generator = torch.Generator().manual_seed(seed)
    return 0.2 * torch.randn(batch, frames * AUDIO.hop_length, generator=generator).double()
