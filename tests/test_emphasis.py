"""De-emphasis is the exact inverse of pre-emphasis, and both are the recursion they say they are."""

import pytest
import scipy.signal
import torch

from wavenet.emphasis import de_emphasis, pre_emphasis


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 128, 4097, 9000])
@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.9, 0.99])
def test_equals_the_recursive_filter(length, coefficient):
    signal = torch.randn(2, length, dtype=torch.float64, generator=torch.Generator().manual_seed(length))
    expected = scipy.signal.lfilter([1.0], [1.0, -coefficient], signal.numpy() / 3.0)
    torch.testing.assert_close(
        de_emphasis(signal, coefficient, 3.0), torch.from_numpy(expected), rtol=1e-11, atol=1e-11
    )
    back = pre_emphasis(de_emphasis(signal, coefficient, 3.0), coefficient, 3.0)
    torch.testing.assert_close(back, signal, rtol=1e-10, atol=1e-10)


def test_log_determinant_and_gradient():
    signal = torch.randn(1, 150, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda y: de_emphasis(y[None], 0.9, 3.0)[0], signal[0])
    assert (jacobian.triu(1) == 0).all()
    torch.testing.assert_close(jacobian.diagonal(), torch.full((150,), 1 / 3.0, dtype=torch.float64))
    torch.testing.assert_close(jacobian[100, 90], torch.tensor(0.9**10 / 3.0, dtype=torch.float64))


def test_float32_stays_close_over_long_signals():
    signal = torch.randn(1, 100_000, generator=torch.Generator().manual_seed(0))
    error = de_emphasis(signal, 0.9).double() - de_emphasis(signal.double(), 0.9)
    assert float(error.abs().max()) < 1e-5


def test_autocast_does_not_reach_the_signal():
    signal = torch.randn(1, 1000, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = de_emphasis(signal, 0.9)
    assert torch.equal(inside, de_emphasis(signal, 0.9))
