"""Maximum likelihood of a MAF is variational inference with its implicit IAF: values and gradients, both directions."""

import pytest
import torch

from distill.flows.base import Chain, Flow, Inverse, log_prob
from distill.flows.permutation import Permutation
from distill.flows.vectors import VectorIAF, VectorMAF
from tests.conftest import randomise
from wavenet.distributions.gaussian import Gaussian

NORMAL = Gaussian(torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64))


def log_data(x: torch.Tensor) -> torch.Tensor:
    """A known density of the plane: two normals of unlike shapes, neither standard nor autoregressive as one step."""
    first = torch.distributions.MultivariateNormal(
        torch.tensor([1.0, -0.5]).double(), torch.tensor([[1.0, 0.6], [0.6, 0.8]]).double()
    )
    second = torch.distributions.MultivariateNormal(
        torch.tensor([-1.0, 0.5]).double(), torch.tensor([[0.7, -0.4], [-0.4, 1.2]]).double()
    )
    return torch.logaddexp(
        first.log_prob(x) + torch.log(torch.tensor(0.6)), second.log_prob(x) + torch.log(torch.tensor(0.4))
    )


def flow(kind: str) -> Flow:
    torch.manual_seed(0)
    if kind == "maf":
        built: Flow = VectorMAF(2, (6,), (1, 0))
    elif kind == "iaf":
        built = VectorIAF(2, (6,))
    else:
        built = Chain([VectorMAF(2, (6,)), Permutation([1, 0]), VectorMAF(2, (6,))])
    randomised = randomise(built.double(), 2, 0.1)
    assert isinstance(randomised, Flow)
    return randomised


def plane() -> tuple[torch.Tensor, float]:
    axis = torch.linspace(-20, 20, 341, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


def divergence(log_p: torch.Tensor, log_q: torch.Tensor, area: float) -> torch.Tensor:
    return (log_p.exp() * (log_p - log_q)).sum() * area


def log_image(built: Flow, z: torch.Tensor) -> torch.Tensor:
    """log p(z | theta): the density that the data have once they are sent back to noise."""
    x, log_det = built(z)
    return log_data(x) + log_det


@pytest.mark.parametrize("kind", ["maf", "iaf", "chain"])
@pytest.mark.parametrize("direction", ["fit", "distil"])
def test_the_two_divergences_and_their_gradients_agree(kind, direction):
    """Left on the plane of data by `inverse`, right on the plane of noise by `forward`: other points, same number."""
    built, (grid, area) = flow(kind), plane()
    parameters = list(built.parameters())
    pairs = [
        (log_data(grid), log_prob(built, NORMAL, grid, None)),
        (log_image(built, grid), NORMAL.log_prob(grid).sum(1)),
    ]
    for log_p, log_q in pairs:  # the box holds all of each density
        assert float(log_p.detach().exp().sum() * area) == pytest.approx(1, abs=1e-7)
        assert float(log_q.detach().exp().sum() * area) == pytest.approx(1, abs=1e-7)
    left, right = (divergence(*(pair if direction == "fit" else pair[::-1]), area) for pair in pairs)
    assert float(left.detach()) > 0.05
    torch.testing.assert_close(left, right, rtol=3e-6, atol=1e-7)
    for mine, other in zip(torch.autograd.grad(left, parameters), torch.autograd.grad(right, parameters), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=3e-5)


def test_image_of_the_data_is_the_implicit_iafs_density():
    """log p(z | theta) by the sequential direction is that of the flow turned round, at data sent back in one pass."""
    built = flow("chain")
    x = 0.7 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        z, log_det = built.inverse(x)
        turned, _ = Inverse(built)(x)
        assert torch.equal(z, turned)
        torch.testing.assert_close(log_image(built, z), log_data(x) - log_det, rtol=1e-9, atol=1e-9)


def test_monte_carlo_over_data_estimates_it():
    """The KL of the fit over draws from the data is the KL over their images, sample by sample."""
    built = flow("maf")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 2, generator=generator, dtype=torch.float64) * 2
    log_draw = torch.distributions.Normal(0.0, 2.0).log_prob(x).sum(1)
    with torch.no_grad():
        z, _ = built.inverse(x)
        weights = (log_data(x) - log_draw).exp()
        ratio_x = log_data(x) - log_prob(built, NORMAL, x, None)
        ratio_z = log_image(built, z) - NORMAL.log_prob(z).sum(1)
        torch.testing.assert_close(ratio_x, ratio_z, rtol=1e-9, atol=1e-9)
        grid, area = plane()
        exact = float(divergence(log_data(grid), log_prob(built, NORMAL, grid, None), area))
    weighted = weights * ratio_x
    assert abs(float(weighted.mean()) - exact) < 4 * float(weighted.std()) / 4000**0.5
