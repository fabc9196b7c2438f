"""One set of weights, two schedules: the step equals the whole-signal forward to ten digits."""

import pytest
import torch

from tests.conftest import randomise, small_stack
from wavenet.layers import CausalConv1d, GatedBlock, shift_right, soft_floor
from wavenet.stack import Stack
from wavenet.upsample import Conditioning


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2, 5])
def test_convolution_step_equals_forward(kernel_size, dilation):
    layer = CausalConv1d(3, 4, kernel_size, dilation).double()
    signal = torch.randn(2, 3, 40, dtype=torch.float64)
    step = layer.stepper(2)
    stepped = torch.stack([step(signal[:, :, t]) for t in range(40)], 2)
    torch.testing.assert_close(stepped, layer(signal), rtol=1e-10, atol=1e-10)


def test_convolution_is_the_sum_over_past_taps():
    layer = CausalConv1d(1, 1, 3, dilation=4, bias=False).double()
    signal = torch.randn(1, 1, 30, dtype=torch.float64)
    w, x = layer.weight[0, 0], signal[0, 0]
    expected = w[2] * x[20] + w[1] * x[16] + w[0] * x[12]
    torch.testing.assert_close(layer(signal)[0, 0, 20], expected)


@pytest.mark.parametrize("conditioned", [False, True])
def test_block_step_equals_forward(conditioned):
    block = randomise(GatedBlock(4, 6, 5, kernel_size=3, dilation=2).double())
    hidden = torch.randn(2, 4, 30, dtype=torch.float64)
    cond = torch.randn(2, 6, 30, dtype=torch.float64) if conditioned else None
    residual, skip = block(hidden, cond)
    step = block.stepper(2)
    for t in range(30):
        stepped = step(hidden[:, :, t], None if cond is None else cond[:, :, t])
        torch.testing.assert_close(stepped[0], residual[:, :, t], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(stepped[1], skip[:, :, t], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel_size", [1, 2, 3])
@pytest.mark.parametrize("conditioned", [False, True])
def test_stack_step_equals_forward(kernel_size, conditioned):
    stack = randomise(Stack(small_stack(kernel_size), 2, 3, 5 if conditioned else 0).double())
    signal = torch.randn(2, 2, 48, dtype=torch.float64)
    cond = None
    if conditioned:
        cond = Conditioning(torch.randn(2, 5, 5, dtype=torch.float64), torch.randn(3, 16, dtype=torch.float64))
    whole, step = stack(signal, cond), stack.stepper(2, cond)
    stepped = torch.stack([step(signal[:, :, t]) for t in range(48)], 2)
    torch.testing.assert_close(stepped, whole, rtol=1e-10, atol=1e-10)


def test_macs_count_every_weight_of_the_sample_rate_path():
    stack = Stack(small_stack(), 1, 2)
    weights = sum(p.numel() for name, p in stack.named_parameters() if name.endswith("weight"))
    assert stack.macs_per_sample == weights


def test_shift_right_delays_by_one():
    assert shift_right(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[0.0, 1.0, 2.0]]


def test_soft_floor_is_above_the_floor_and_keeps_a_gradient():
    value = torch.linspace(-20, 20, 401, dtype=torch.float64, requires_grad=True)
    floored = soft_floor(value, -9.0)
    (gradient,) = torch.autograd.grad(floored.sum(), value)
    assert (floored > -9.0).all()
    assert (gradient > 0).all()
    torch.testing.assert_close(floored[-1], value[-1], rtol=0, atol=1e-12)
