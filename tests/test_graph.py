"""The block of samples that a CUDA graph records: the naive sampler's numbers, on a CPU without a graph."""

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import AUDIO, random_mel, randomise, small_teacher
from wavenet.config import DistributionConfig, StackConfig, TeacherConfig
from wavenet.noise import uniforms
from wavenet.sampling.block import BlockStepper
from wavenet.sampling.graph import sample_in_blocks
from wavenet.teacher import Teacher


def trained_size(kind: str) -> Teacher:
    """A float32 teacher of 2 x 10 layers, 64 residual channels and ten logistics, its weights far from their start."""
    bits, emphasis = (8, 0.0) if kind == "mulaw" else (16, 0.9)
    law = DistributionConfig(kind, components=10, bits=bits)
    torch.manual_seed(0)
    model = randomise(
        Teacher(TeacherConfig(audio=AUDIO, distribution=law, gain=4.0, pre_emphasis=emphasis)), scale=0.05
    )
    assert isinstance(model, Teacher)
    return model.eval().requires_grad_(False)


def both(model, mel, block, temperature=1.0, speaker=None):
    """The reference's samples and the block's, at one noise."""
    noise = uniforms(range(len(mel)), mel.shape[2] * AUDIO.hop_length, model.noise_channels, dtype=mel.dtype)
    reference = model.sample(mel, "cached", seed=0, temperature=temperature, speaker=speaker)
    return reference, sample_in_blocks(model, mel, noise, temperature, speaker, block=block)


@pytest.mark.parametrize("kind", ["mol", "gaussian", "mulaw"])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4])
def test_blocks_equal_naive(kind, kernel_size):
    """Lengths that are no multiple of a block; blocks shorter and longer than dilations and than frames."""
    model, mel = small_teacher(kind, kernel_size=kernel_size), random_mel(2, 5)
    naive = model.sample(mel, "naive", seed=0)
    assert float(naive.std()) > 0.01
    for block in (5, 7, 16, 33):
        torch.testing.assert_close(both(model, mel, block)[1], naive, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["mol", "gaussian", "mulaw"])
@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_temperature(kind, temperature):
    model, mel = small_teacher(kind), random_mel(3, 4)
    cached, blocks = both(model, mel, 12, temperature)
    torch.testing.assert_close(blocks, cached, rtol=0, atol=1e-9)
    assert float((blocks - both(model, mel, 12)[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", ["mol", "gaussian"])
@pytest.mark.parametrize("kernel_size", [1, 2, 4])
def test_source_and_speakers(kind, kernel_size):
    model, mel = small_teacher(kind, source=True, speakers=2, kernel_size=kernel_size), random_mel(2, 6)
    cached, blocks = both(model, mel, 20, speaker=torch.tensor([1, 0]))
    torch.testing.assert_close(blocks, cached, rtol=0, atol=1e-9)


def test_a_stack_whose_dilations_outlast_many_blocks():
    stack = StackConfig(2, 7, 3, residual_channels=5, gate_channels=14, skip_channels=3)
    config = dataclasses.replace(small_teacher().config, stack=stack)
    torch.manual_seed(0)
    model, mel = Teacher(config).double().eval(), random_mel(1, 40)
    cached, blocks = both(model, mel, 32)
    assert mel.shape[2] * AUDIO.hop_length > model.receptive_field
    torch.testing.assert_close(blocks, cached, rtol=0, atol=1e-9)


class _Operations(TorchDispatchMode):
    """Lists operations that are kernels on a GPU: those that make or change numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if not any(output.alias_info and not output.alias_info.is_write for output in function._schema.returns):
            self.names.append(function._schema.name)
        return result


@pytest.mark.parametrize("kind", ["mol", "gaussian", "mulaw"])
def test_operations_of_a_block(kind):
    """As many a sample as the estimate in wavenet.sampling.graph stands on, and none for which a host must wait."""
    model, mel = trained_size(kind), torch.zeros(1, AUDIO.n_mels, 2)
    with torch.no_grad():
        noise = torch.full((1, 32, model.noise_channels), 0.5)
        stepper = BlockStepper(model, noise, block=32)
        stepper.load(stepper.drive(model, model.conditioning(mel), noise), 0)
        with _Operations() as operations:
            stepper.run()
    assert 60 < len(operations.names) / 32 <= 3 * 20 + 25
    waiting = {
        "aten::_local_scalar_dense",
        "aten::nonzero",
        "aten::_to_copy",
        "aten::lift_fresh",
        "aten::masked_select",
    }
    assert not waiting & set(operations.names)


@pytest.mark.gpu
@pytest.mark.parametrize("kernels", [False, True])
def test_a_graph_is_the_parallel_pass_over_20000_samples(kernels, monkeypatch):
    """Float32, on its own samples: a Gaussian's, whose draws have no edge for rounding to fall on either side of."""
    model = trained_size("gaussian").cuda()
    mel = torch.randn(1, AUDIO.n_mels, 20_000 // AUDIO.hop_length, generator=torch.Generator().manual_seed(0)).cuda()
    monkeypatch.setattr("wavenet.sampling.graph._kernels", lambda: kernels)
    wav = model.sample(mel, "graph", seed=0)
    with torch.no_grad():
        found = model(wav, mel).transform(uniforms([0], wav.shape[1]).cuda())
    torch.testing.assert_close(found, wav, rtol=0, atol=1e-4)
