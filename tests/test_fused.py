"""The compiled engine: the naive sampler's numbers at any size, in lockstep, over threads, and for 20,000 samples."""

import dataclasses

import pytest
import torch

from distill.flows.autoregressive import IAF
from tests.conftest import AUDIO, random_mel, randomise, small_stack, small_teacher
from wavenet.config import StackConfig, TeacherConfig, UpsampleConfig
from wavenet.fused import engine
from wavenet.sampling.fused import forced_outputs
from wavenet.teacher import Teacher

SIZES = [
    StackConfig(1, 1, 2, residual_channels=1, gate_channels=2, skip_channels=1),
    StackConfig(1, 2, 1, residual_channels=7, gate_channels=20, skip_channels=18),
    StackConfig(1, 1, 4, residual_channels=3, gate_channels=6, skip_channels=5),
    StackConfig(2, 4, 3, residual_channels=33, gate_channels=34, skip_channels=17),
    StackConfig(1, 7, 2, residual_channels=16, gate_channels=96, skip_channels=48),
    StackConfig(1, 6, 4, residual_channels=5, gate_channels=70, skip_channels=40),
]


def teacher_of(stack: StackConfig, hop: int = 16, **settings) -> Teacher:
    config = dataclasses.replace(
        small_teacher().config, stack=stack, audio=dataclasses.replace(AUDIO, hop_length=hop), **settings
    )
    torch.manual_seed(0)
    model = randomise(Teacher(config).double(), scale=0.1)
    assert isinstance(model, Teacher)
    return model.eval().requires_grad_(False)


def seeded(model: Teacher, mel: torch.Tensor, method: str, **settings) -> torch.Tensor:
    return model.sample(mel, method, torch.Generator().manual_seed(5), **settings)


@pytest.mark.parametrize("stack", SIZES, ids=lambda stack: f"kernel {stack.kernel_size}")
@pytest.mark.parametrize("hop", [16, 14, 50])
def test_any_size_equals_the_parallel_pass(stack, hop):
    """Sizes and hops that fit no register, over lengths beyond every dilation and many blocks."""
    model, mel = teacher_of(stack, hop), random_mel(2, 600 // hop)
    wav = seeded(model, mel, "fused")
    uniforms = torch.rand(*wav.shape, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    assert wav.shape[1] > 3 * model.receptive_field or stack.layers > 3
    torch.testing.assert_close(model(wav, mel).transform(uniforms), wav, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["mol", "gaussian", "mulaw"])
@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_temperature(kind, temperature):
    model, mel = small_teacher(kind), random_mel(2, 6)
    cached, fused = (seeded(model, mel, method, temperature=temperature) for method in ("cached", "fused"))
    torch.testing.assert_close(fused, cached, rtol=0, atol=1e-9)
    assert float((fused - seeded(model, mel, "fused")).abs().max()) > 1e-3


@pytest.mark.parametrize(("kind", "kernel_size"), [("mol", 2), ("gaussian", 3)])
def test_a_source_conditioned_teacher(kind, kernel_size):
    model, mel = small_teacher(kind, source=True, speakers=2, kernel_size=kernel_size), random_mel(2, 6)
    speaker = torch.tensor([1, 0])
    cached, fused = (seeded(model, mel, method, speaker=speaker) for method in ("cached", "fused"))
    torch.testing.assert_close(fused, cached, rtol=0, atol=1e-9)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_lockstep_and_threads(threads):
    """21 signals: more than one group of 16, of which the last has another size."""
    model, mel = teacher_of(SIZES[1]), random_mel(21, 5)
    torch.set_num_threads(threads)
    together = model.sample(mel, "fused", seed=40)
    alone = torch.cat([model.sample(mel[n : n + 1], "fused", seed=40 + n) for n in (0, 15, 16, 20)])
    torch.testing.assert_close(together[[0, 15, 16, 20]], alone, rtol=0, atol=1e-9)
    assert float((together[0] - together[1]).abs().max()) > 1e-3


def test_in_pieces(monkeypatch):
    model, mel = teacher_of(SIZES[3]), random_mel(3, 30)
    whole = seeded(model, mel, "fused")
    monkeypatch.setattr(engine, "_AT_ONCE", 96)
    torch.testing.assert_close(seeded(model, mel, "fused"), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("stack", "length"), [(StackConfig(), 20_000), (StackConfig(1, 10, 3, 128, 256, 128), 4_000)], ids=["small", "wide"]
)
@pytest.mark.parametrize("narrow", [False, True])
def test_outputs_are_the_parallel_pass_within_1e_4(stack, length, narrow, monkeypatch):
    """float32, full channel counts, every dilation many times round its ring."""
    monkeypatch.setattr("wavenet.fused.weights.pays", lambda dtype, count: narrow)
    torch.manual_seed(0)
    config = TeacherConfig(audio=dataclasses.replace(AUDIO, hop_length=64), stack=stack, gain=4.0)
    model = randomise(Teacher(dataclasses.replace(config, upsample=UpsampleConfig(16, 1))), scale=0.12).eval()
    assert isinstance(model, Teacher)
    frames = length // 64 + 1
    mel = torch.randn(1, AUDIO.n_mels, frames, generator=torch.Generator().manual_seed(1))
    wav = 0.3 * torch.sin(0.05 * torch.arange(frames * 64))[None] + 0.05 * torch.randn(1, frames * 64)
    seen = []
    handle = model.stack.output.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        model(wav, mel)
    handle.remove()
    found, expected = forced_outputs(model, wav, mel), seen[0].transpose(1, 2)
    assert float(expected.std(1).mean()) > 0.02  # alive
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_classes_follow_their_probabilities():
    """Chi-square over 16 classes of the first sample, drawn for 6,000 seeds."""
    model = small_teacher("mulaw", bits=4)
    mel = random_mel(1, 1)
    first = model.sample(mel.expand(6000, -1, -1), "fused", seed=0)[:, 0]
    masses = model(torch.zeros(1, 16, dtype=torch.float64), mel).logits[0, 0].softmax(-1).detach()
    counts = torch.bincount(model.head.mulaw.encode(first), minlength=16)
    chi_square = ((counts - 6000 * masses) ** 2 / (6000 * masses)).sum()
    assert float(chi_square) < 37.7  # one in a thousand at 15 degrees of freedom


def test_a_mixture_follows_its_distribution():
    """Kolmogorov-Smirnov on the first sample, drawn for 6,000 seeds."""
    model = small_teacher("mol")
    mel = random_mel(1, 1)
    first = model.sample(mel.expand(6000, -1, -1), "fused", seed=0)[:, 0].sort().values
    law = model(torch.zeros(1, 16, dtype=torch.float64), mel)
    cdf = torch.stack([law.cdf(value.expand(1, 16))[0, 0] for value in first + law.grid.half_step])
    inside = first.abs() < 1
    gap = (cdf - torch.arange(1, 6001) / 6000)[inside].detach().abs().max()
    assert float(gap) < 1.95 / 6000**0.5  # one in a thousand


@pytest.mark.parametrize("kind", ["mol", "gaussian", "mulaw"])
def test_a_broken_network_shows(kind):
    model, mel = small_teacher(kind), random_mel(1, 4)
    model.stack.blocks[1].output.bias.data[0] = float("nan")
    assert bool(seeded(model, mel, "fused").isnan().any())


def test_other_precisions_no_signals_and_autocast():
    model, mel = small_teacher().float(), random_mel(2, 4).float()
    plain = model.sample(mel, "fused", seed=1)
    assert model.sample(mel[:0], "fused", seed=1).shape == (0, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.sample(mel, "fused", seed=1).isfinite().all()
    rounded = small_teacher().bfloat16()
    assert rounded.sample(mel.bfloat16(), "fused", seed=1).isfinite().all()
    with torch.inference_mode():
        inside = small_teacher().float()
    torch.testing.assert_close(inside.sample(mel, "fused", seed=1), plain, rtol=0, atol=1e-4)


def test_an_interrupted_group_ends(monkeypatch):
    model, mel = teacher_of(SIZES[1]), random_mel(4, 40)
    monkeypatch.setattr(engine, "_AT_ONCE", 64)
    pieces, loop = [], engine.run

    def once(*arguments):
        pieces.append(arguments[6])
        if len(pieces) == 2:
            raise KeyboardInterrupt
        loop(*arguments)

    once.overloads = loop.overloads
    monkeypatch.setattr(engine, "run", once)
    with pytest.raises(KeyboardInterrupt):
        model.sample(mel, "fused", seed=0)
    assert pieces == [0, 64]


def test_changed_weights_are_packed_again():
    model, mel = small_teacher(), random_mel(1, 4)
    before = seeded(model, mel, "fused")
    weight = model.stack.blocks[2].dilated.weight
    with torch.no_grad():
        weight.mul_(1.5)
    torch.testing.assert_close(seeded(model, mel, "fused"), seeded(model, mel, "cached"), rtol=0, atol=1e-9)
    weight.data = weight.data / 1.5
    torch.testing.assert_close(seeded(model, mel, "fused"), before, rtol=0, atol=1e-9)
    weight.data[0, 0, 0] += 1
    torch.testing.assert_close(seeded(model, mel, "fused"), seeded(model, mel, "cached"), rtol=0, atol=1e-9)


def test_inverse_without_conditioning_is_the_inverse():
    flow = randomise(IAF(small_stack(3)).double(), scale=0.3).eval()
    noise = torch.randn(3, 90, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        signal, log_det = flow(noise)
    back, inverse_log_det = flow.inverse(signal)
    torch.testing.assert_close(back, noise, rtol=0, atol=1e-9)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=1e-9)
