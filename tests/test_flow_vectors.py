"""Flows on vectors: MADE's masks by gradient for every order, Jacobians, inverses, an independent implementation."""

import itertools

import pytest
import torch

from distill.flows.base import Chain, Inverse, log_prob
from distill.flows.made import MADE
from distill.flows.permutation import Permutation
from distill.flows.vectors import VectorIAF, VectorMAF, conditioning
from distill.flows.whitening import Whitening
from tests.conftest import randomise
from wavenet.distributions.gaussian import Gaussian
from wavenet.errors import UserError

ORDERS = [order for size in range(1, 5) for order in itertools.permutations(range(size))]
RANDOM = [
    tuple(torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist())
    for size in (5, 6, 11)
    for seed in range(3)
]
STANDARD = Gaussian(torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64))


def points(rows: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def before(order) -> torch.Tensor:
    """(m, m): whether column j stands before row i in the order."""
    places = torch.tensor(order).argsort()
    return places[None] < places[:, None]


def iaf(size: int, order=None, features: int = 0, hidden=(16, 12), seed: int = 0) -> VectorIAF:
    torch.manual_seed(seed)
    flow = randomise(VectorIAF(size, hidden, order, features).double(), seed, 0.2)
    assert isinstance(flow, VectorIAF)
    return flow


def chain(size: int, turned: bool) -> Chain:
    flows = [iaf(size, seed=seed) for seed in (1, 2, 3)]
    turned_flows = [Inverse(flow) if turned else flow for flow in flows]
    order = list(reversed(range(size)))
    random = torch.randperm(size, generator=torch.Generator().manual_seed(3)).tolist()
    factor = torch.ones(size, size, dtype=torch.float64).tril() + torch.linspace(0, 1, size).diag()
    return Chain(
        [
            turned_flows[0],
            Permutation(order),
            turned_flows[1],
            Permutation(random),
            turned_flows[2],
            Whitening(torch.linspace(-1, 1, size, dtype=torch.float64), factor),
        ]
    )


@pytest.mark.parametrize("order", ORDERS + RANDOM, ids=str)
@pytest.mark.parametrize("hidden", [(), (13,), (12, 17), (20, 11, 14)], ids=str)
def test_outputs_depend_on_exactly_the_coordinates_before_theirs(order, hidden):
    """Each of the two outputs has a nonzero derivative by every earlier coordinate, and an exact 0 by all others."""
    torch.manual_seed(1)
    network = MADE(len(order), hidden, 2, order).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x[None])[0], points(1, len(order))[0])
    for part in jacobian:
        assert torch.equal(part != 0, before(order))


@pytest.mark.parametrize("size", [5, 6])
def test_all_orders_of_five_and_six_coordinates(size):
    """All 120 and all 720 of them, by one gradient of each row: what each output depends on."""
    torch.manual_seed(1)
    x = points(size, size).requires_grad_()
    for order in itertools.permutations(range(size)):
        network = MADE(size, (7, 9), 1, order).double()
        (seen,) = torch.autograd.grad(network(x)[:, 0].diagonal().sum(), x)  # row i: the gradient of output i
        assert torch.equal(seen != 0, before(order)), order


@pytest.mark.parametrize("order", [(0,), (0, 1), (1, 0), (2, 0, 1), (4, 1, 3, 0, 2)], ids=str)
def test_every_output_sees_the_features_the_first_one_too(order):
    torch.manual_seed(1)
    network, features = MADE(len(order), (14, 16), 2, order, features=3).double(), points(1, 3, 1)
    x = points(1, len(order))
    by_vector = torch.autograd.functional.jacobian(lambda v: network(v, features)[0], x)[:, :, 0]
    by_features = torch.autograd.functional.jacobian(lambda f: network(x, f)[0], features)[:, :, 0]
    assert (by_features != 0).all()
    for part in by_vector:
        assert torch.equal(part != 0, before(order))


def test_every_factor_of_a_made_integrates_the_joint_to_one():
    """The product of conditionals is a density on the plane, whatever the order."""
    for order in ((0, 1), (1, 0)):
        grid = torch.linspace(-14, 14, 281, dtype=torch.float64)
        with torch.no_grad():
            density = log_prob(Inverse(iaf(2, order)), STANDARD, torch.cartesian_prod(grid, grid), None).exp()
        total = torch.trapezoid(torch.trapezoid(density.reshape(281, 281), grid, dim=1), grid)
        assert float(total) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("order", [(0, 0), (0, 2), (0,)], ids=str)
def test_a_wrong_order_is_refused(order):
    for build in (lambda: MADE(2, (8,), 2, order), lambda: VectorIAF(2, (8,), order)):
        with pytest.raises(UserError, match="permutation"):
            build()
    with pytest.raises(UserError, match="permutation"):
        Permutation([1, 1])


def test_a_layer_that_would_lose_coordinates_is_refused():
    with pytest.raises(UserError, match="at least 5"):
        MADE(6, (16, 4), 2)
    with pytest.raises(UserError, match="positive"):
        Whitening(torch.zeros(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))


@pytest.mark.parametrize("order", [*ORDERS, RANDOM[0], RANDOM[5]], ids=str)
def test_iaf_is_triangular_in_its_order_and_log_det_is_autograds(order):
    flow, z = iaf(len(order), order), points(1, len(order))
    jacobian = torch.autograd.functional.jacobian(lambda noise: flow(noise)[0], z)[0, :, 0]
    assert torch.equal(jacobian != 0, before(order) | torch.eye(len(order), dtype=torch.bool))
    torch.testing.assert_close(jacobian.diagonal(), flow.affine(z)[1][0].exp(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(flow(z)[1][0], torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("turned", [False, True], ids=["iaf", "maf"])
def test_chain_both_directions_against_autograd(size, turned):
    """Forward and inverse undo each other, and each has autograd's determinant: both directions are differentiable."""
    flow, z = chain(size, turned), points(3, size)
    x, log_det = flow(z)
    back, inverse_log_det = flow.inverse(x)
    torch.testing.assert_close(back, z, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=1e-10, atol=1e-10)
    for function, start, claimed in ((flow, z, log_det), (flow.inverse, x, inverse_log_det)):
        for row in range(3):
            jacobian = torch.autograd.functional.jacobian(lambda v, f=function: f(v[None])[0][0], start[row])
            expected = torch.linalg.slogdet(jacobian).logabsdet
            torch.testing.assert_close(claimed[row], expected, rtol=1e-9, atol=1e-9)


def test_maf_density_is_iaf_sampling_with_the_same_weights():
    flow = iaf(4, (2, 0, 3, 1))
    maf = VectorMAF(4, (16, 12), (2, 0, 3, 1)).double()
    maf.flow.load_state_dict(flow.state_dict())
    x = points(5, 4)
    for mine, other in zip(maf.inverse(x), flow(x), strict=True):
        assert torch.equal(mine, other)
    for mine, other in zip(maf(x), flow.inverse(x), strict=True):
        assert torch.equal(mine, other)
    # The textbook form: x_i = z_i s'_i(x_<i) + m'_i(x_<i) with s' = 1 / s, m' = -m / s.
    sample, _ = maf(x)
    loc, log_scale = flow.affine(sample)
    torch.testing.assert_close(sample, x * torch.exp(-log_scale) - loc * torch.exp(-log_scale), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("turned", "density", "sampling"), [(False, 4, 1), (True, 1, 4)], ids=["iaf", "maf"])
def test_passes_of_density_and_sampling(turned, density, sampling):
    flow, passes = iaf(4), 0

    def count(*_):
        nonlocal passes
        passes += 1

    flow.network.register_forward_hook(count)
    directed = Inverse(flow) if turned else flow
    directed(points(2, 4))
    assert passes == sampling
    passes = 0
    log_prob(directed, STANDARD, points(2, 4), None)
    assert passes == density


def test_log_scale_far_out_of_range_stays_finite_and_invertible():
    flow = iaf(3)
    with torch.no_grad():
        flow.network.last.weight.mul_(1e3)
    z = points(4, 3)
    x, log_det = flow(z)
    assert torch.isfinite(x).all()
    assert ((log_det >= -21) & (log_det <= 15 + 3e-3)).all()
    # Coordinates not yet known would be infinite were all of them computed in every pass.
    back, _ = flow.inverse(1e6 * points(4, 3))
    assert torch.isfinite(back).all()


def test_features_move_the_map_and_the_inverse_follows():
    flow, z = iaf(4, features=2), points(3, 4)
    one, other = (conditioning(points(3, 2, seed), 4) for seed in (1, 2))
    assert one.length == 4
    assert torch.equal(one.at_samples()[:, :, 0], one.at_samples()[:, :, 3])
    x, _ = flow(z, one)
    assert (x - flow(z, other)[0]).abs().min() > 1e-4
    torch.testing.assert_close(flow.inverse(x, one)[0], z, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1)], ids=str)
def test_zuko_agrees(order):
    """The same conditioner inside zuko's AutoregressiveTransform: signal, determinant and inverse."""
    zuko = pytest.importorskip("zuko")
    flow, z = iaf(4, order), points(6, 4)

    def meta(x: torch.Tensor):
        loc, log_scale = flow.affine(x)
        return torch.distributions.transforms.AffineTransform(loc, log_scale.exp())

    transform = zuko.transforms.AutoregressiveTransform(meta, passes=4)
    x, log_det = flow(z)
    torch.testing.assert_close(transform(z), x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(transform.log_abs_det_jacobian(z, x).sum(1), log_det, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(transform.inv(x), flow.inverse(x)[0], rtol=1e-9, atol=1e-9)


def test_zukos_own_masks_give_the_same_density():
    """zuko's MAF transform with this network's weights: its masks, its composition, its change of variables."""
    zuko = pytest.importorskip("zuko")
    theirs = zuko.flows.autoregressive.MaskedAutoregressiveTransform(
        features=3, hidden_features=(9,), activation=torch.nn.SiLU, order=torch.tensor([2, 0, 1])
    ).double()
    # zuko's `order` holds the place of each coordinate.
    mine = VectorIAF(3, (9,), order=[1, 2, 0]).double()
    x = points(5, 3)
    network = mine.network
    linear = [layer for layer in theirs.hyper if isinstance(layer, torch.nn.Linear)]
    hidden = [layer for layer in network.layers if isinstance(layer, torch.nn.Linear)]
    seen = (linear[0].mask.sum(1), hidden[0].mask.sum(1))
    rows = [torch.tensor([int((s == d).nonzero()[0]) for d in (1, 2)]) for s in seen]
    with torch.no_grad():
        for layer in (*linear, *hidden, network.last):
            layer.weight.zero_()
            layer.bias.zero_()
        weight = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        out = 0.3 * torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        for layer, place in ((linear[0], rows[0]), (hidden[0], rows[1])):
            layer.weight[place] = weight
        network.last.weight[:, rows[1]] = out.reshape(6, 2)
        # zuko lays its parameters out coordinate by coordinate: shift, then log scale.
        linear[1].weight[:, rows[0]] = out.permute(1, 0, 2).reshape(6, 2)
    transform = theirs()
    loc, raw = mine.network(x).unbind(1)
    # zuko's soft clip of the log scale is its own: undo it to compare maps.
    clipped = raw / (1 + (raw / torch.log(torch.tensor(1e-3, dtype=torch.float64))).abs())
    torch.testing.assert_close(transform(x), x * clipped.exp() + loc, rtol=1e-10, atol=1e-10)
