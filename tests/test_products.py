"""What the compiled engine is made of: products in registers, two convolutions as one, addresses, nonlinearities."""

import numba
import numpy as np
import pytest
import torch

from tests.conftest import randomise
from wavenet.config import StackConfig
from wavenet.fused.activations import exponential, gated
from wavenet.fused.matrices import entry, in_one, matrices
from wavenet.fused.products import address, matmul, padded, panels
from wavenet.stack import Stack


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 15])
def test_products(dtype, rows):
    generator = np.random.default_rng(0)

    @numba.njit
    def product(w, n, columns, x, y):
        matmul(w.dtype.type(0), len(x), address(w), n, columns, address(x), x.shape[1], address(y), y.shape[1])

    for n, outputs in ((1, 1), (7, 16), (13, 33), (64, 128), (3, 50)):
        w, x = generator.standard_normal((n, outputs)).astype(dtype), generator.standard_normal((rows, n)).astype(dtype)
        y = np.ones((rows, padded(outputs)), dtype)
        product(panels(w), n, padded(outputs), x, y)
        exact = 1 + x.astype(float) @ w.astype(float)  # a product in float32 rounds by the processor's instructions
        np.testing.assert_allclose(y[:, :outputs], exact, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-12)
        assert (y[:, outputs:] == 1).all()


@pytest.mark.parametrize("taps", [1, 2, 3, 4])
def test_the_first_two_convolutions_are_one_product(taps):
    """Each padded by zeros for itself, so that what the first one's bias adds begins with the signal."""
    stack = StackConfig(1, 1, taps, residual_channels=5, gate_channels=6, skip_channels=3)
    network = randomise(Stack(stack, in_channels=2, out_channels=1).double())
    signal = torch.randn(1, 2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    padded_signal = torch.nn.functional.pad(torch.cat([signal, torch.ones(1, 1, 9)], 1), (2 * taps - 2, 0))
    windows = padded_signal.unfold(2, 2 * taps - 1, 1)[0].permute(1, 2, 0).flatten(1).numpy()  # (9, (2 taps - 1) 3)
    dilated = network.blocks[0].dilated
    with torch.no_grad():
        expected = dilated(network.input(signal))[0].T - dilated.bias
    np.testing.assert_allclose(windows @ in_one(entry(network), matrices(dilated)), expected, rtol=0, atol=1e-12)


def test_nonlinearities_in_float32():
    @numba.njit
    def evaluate(a, b, product, power):
        for i in range(len(a)):
            product[i] = gated(a[i], b[i])
            power[i] = exponential(-abs(b[i]))

    generator = np.random.default_rng(0)
    a, b = (generator.uniform(-12, 12, 20000).astype(np.float32) for _ in range(2))
    product, power = np.empty_like(a), np.empty_like(a)
    evaluate(a, b, product, power)
    a, b = a.astype(np.float64), b.astype(np.float64)
    np.testing.assert_allclose(product, np.tanh(a) / (1 + np.exp(-b)), rtol=0, atol=6e-7)
    np.testing.assert_allclose(power, np.exp(-np.abs(b)), rtol=3e-7)


def test_the_gate_keeps_infinities_and_nan():
    @numba.njit
    def evaluate(a, b, product):
        for i in range(len(a)):
            product[i] = gated(a[i], b[i])

    infinite, nan = float("inf"), float("nan")
    a = np.array([infinite, -infinite, 1.0, 1.0, nan, 1.0], np.float32)
    b = np.array([infinite, infinite, infinite, -infinite, 1.0, nan], np.float32)
    product = np.empty_like(a)
    evaluate(a, b, product)
    np.testing.assert_allclose(product, [1, -1, np.tanh(1), 0, nan, nan], atol=1e-6)
