"""The gated layers as one function equal the blocks one by one: outputs and every gradient, to ten digits."""

import pytest
import torch

from tests.conftest import random_mel, random_wav, randomise, small_stack, small_teacher
from wavenet.config import StackConfig
from wavenet.gates import gated_layers
from wavenet.stack import Stack
from wavenet.upsample import Conditioning

HOP, FRAMES = 16, 4


def conditioning() -> Conditioning:
    generator = torch.Generator().manual_seed(2)
    frames = torch.randn(2, 5, FRAMES + 2, generator=generator).double().requires_grad_()
    return Conditioning(frames, torch.randn(3, HOP, generator=generator).double().requires_grad_())


def block_by_block(stack: Stack, signal: torch.Tensor, cond: Conditioning | None) -> torch.Tensor:
    """Autograd through the modules, as inference runs them."""
    parts = [None] * len(stack.blocks) if cond is None else [part.at_samples() for part in stack.conditions(cond)]
    return stack._run(stack.input(signal), stack.blocks, parts, stack.hidden, stack.output)


def gradients(output: torch.Tensor, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(3), dtype=output.dtype)
    found = torch.autograd.grad((output * weights).sum(), list(inputs.values()), allow_unused=True)
    return {name: torch.zeros_like(inputs[name]) if g is None else g for name, g in zip(inputs, found, strict=True)}


@pytest.mark.parametrize("first", [0, 1, 21, 48, 63])
@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        small_stack(kernel_size=1),
        small_stack(kernel_size=2),
        small_stack(kernel_size=3, cycles=1),
        StackConfig(1, 1, 2, residual_channels=3, gate_channels=4, skip_channels=2),
        StackConfig(1, 8, 2, residual_channels=3, gate_channels=4, skip_channels=2),  # dilations beyond the signal
    ],
    ids=["kernel 1", "kernel 2", "kernel 3", "one layer", "long dilations"],
)
def test_equals_the_blocks_in_value_and_gradient(config, conditioned, first):
    compare(Stack(config, 2, 3, 5 if conditioned else 0), conditioned, first)


@pytest.mark.parametrize("first", [0, 21])
@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize(
    "config", [small_stack(kernel_size=3), small_stack(5, 1), StackConfig(1, 8, 3, 3, 4, 2)], ids=["3", "5", "long"]
)
def test_centred_layers_equal_their_blocks_too(config, conditioned, first):
    compare(Stack(config, 2, 3, 5 if conditioned else 0, centred=True), conditioned, first)


def compare(stack: Stack, conditioned: bool, first: int) -> None:
    stack = randomise(stack.double())
    signal = torch.randn(2, 2, HOP * FRAMES, dtype=torch.float64).requires_grad_()
    cond = conditioning() if conditioned else None
    inputs = dict(stack.named_parameters()) | {"signal": signal}
    if cond is not None:
        inputs |= {"frames": cond.frames, "kernel": cond.kernel}
    expected, found = block_by_block(stack, signal, cond)[:, :, first:], stack(signal, cond, first)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    wanted, given = gradients(expected, inputs), gradients(found, inputs)
    for name, gradient in wanted.items():
        torch.testing.assert_close(given[name], gradient, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    with torch.no_grad():
        torch.testing.assert_close(stack(signal, cond, first), expected, rtol=1e-10, atol=1e-10)


def test_gradient_of_frozen_layers_is_that_of_the_signal_alone():
    stack, cond = randomise(Stack(small_stack(), 1, 2, 5).double()).requires_grad_(False), conditioning()
    cond = Conditioning(cond.frames.detach(), cond.kernel.detach())
    signal = torch.randn(2, 1, HOP * FRAMES, dtype=torch.float64).requires_grad_()
    one, other = (gradients(y, {"x": signal}) for y in (stack(signal, cond), block_by_block(stack, signal, cond)))
    torch.testing.assert_close(one["x"], other["x"], rtol=1e-10, atol=1e-10)


def test_a_kept_graph_gives_the_same_gradient_twice():
    stack, cond = randomise(Stack(small_stack(), 1, 2, 5).double()), conditioning()
    loss = stack(torch.randn(2, 1, HOP * FRAMES, dtype=torch.float64), cond).square().sum()
    weights = list(stack.blocks.parameters())
    first = torch.autograd.grad(loss, weights, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(loss, weights), strict=True))


def test_samples_before_the_first_are_not_computed():
    """What only they depend on may be anything."""
    stack, cond = randomise(Stack(small_stack(cycles=1), 1, 2, 5).double()), conditioning()
    hidden = torch.randn(2, 4, HOP * FRAMES, dtype=torch.float64)
    layers, dilations = stack._layers(cond, hidden), stack.config.dilations
    begin = 48 - sum(dilations)
    assert begin > HOP
    spoilt = hidden.clone()
    spoilt[:, :, : begin // HOP * HOP] = torch.nan
    torch.testing.assert_close(
        gated_layers(spoilt, layers, dilations, 48), gated_layers(hidden, layers, dilations, 48), rtol=0, atol=0
    )


@pytest.mark.parametrize("kind", ["mol", "gaussian", "mulaw"])
@pytest.mark.parametrize("source", [False, True])
def test_teacher_of_the_later_samples_is_the_teacher(kind, source):
    teacher, wav, mel = small_teacher(kind, source=source and kind != "mulaw"), random_wav(2, 5), random_mel(2, 5)
    for first in (0, 1, 33):
        part, whole = teacher(wav, mel, first=first), teacher(wav, mel)
        assert part.batch_shape == (2, wav.shape[1] - first)
        for score in ("log_prob", "log_density"):
            expected = getattr(whole, score)(wav)[:, first:]
            torch.testing.assert_close(getattr(part, score)(wav[:, first:]), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("level", [0.05, 1.0])
def test_bf16_loses_no_more_than_the_blocks_do(level):
    """Against float64, also where signals are quiet and the gates nearly linear."""
    exact = Stack(StackConfig(1, 6, 2, 16, 32, 16), 1, 2).double()
    with torch.no_grad():
        for block in exact.blocks:
            block.dilated.bias.zero_()
        exact.input.bias.zero_()
    signal = level * torch.randn(2, 1, 256, generator=torch.Generator().manual_seed(0)).double()
    wanted = gradients(exact(signal), dict(exact.named_parameters()))
    single = Stack(exact.config, 1, 2)
    single.load_state_dict(exact.state_dict())
    errors = []
    for run in (lambda: single(signal.float()), lambda: block_by_block(single, signal.float(), None)):
        with torch.autocast("cpu", torch.bfloat16):
            output = run()
        given = gradients(output.double(), dict(single.named_parameters()))
        off = sum(float((given[name] - gradient).square().sum()) for name, gradient in wanted.items())
        errors.append((off / sum(float(gradient.square().sum()) for gradient in wanted.values())) ** 0.5)
    assert errors[0] < 1.5 * errors[1]
    assert errors[0] < 0.05


def test_transforms_of_torch_func_take_the_plain_formula():
    """Gradients for each signal of a batch by vmap, a directional derivative by jvp, both against reverse mode."""
    stack = randomise(Stack(small_stack(cycles=1), 1, 2).double())
    signals = torch.randn(3, 1, 20, generator=torch.Generator().manual_seed(0)).double()
    weights = dict(stack.named_parameters())

    def loss(parameters, signal):
        return torch.func.functional_call(stack, parameters, (signal[None],)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, signals)
    for place, signal in enumerate(signals):
        expected = torch.autograd.grad(stack(signal[None]).square().sum(), list(weights.values()), allow_unused=True)
        for (name, weight), wanted in zip(weights.items(), expected, strict=True):
            wanted = torch.zeros_like(weight) if wanted is None else wanted
            torch.testing.assert_close(each[name][place], wanted, rtol=1e-10, atol=1e-10)
    direction = torch.randn_like(signals)
    leaf = signals.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(stack(leaf).square().sum(), leaf)
    _, slope = torch.func.jvp(lambda signal: stack(signal).square().sum(), (signals,), (direction,))
    torch.testing.assert_close(slope, (gradient * direction).sum(), rtol=1e-10, atol=1e-10)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(signals, direction)
        slope = torch.autograd.forward_ad.unpack_dual(stack(dual).square().sum()).tangent
    torch.testing.assert_close(slope, (gradient * direction).sum(), rtol=1e-10, atol=1e-10)
