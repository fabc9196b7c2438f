"""RealNVP on audio: log_det = autograd's, inverse exact both ways, mass 1, reach as stated; a case of IAF and MAF."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from distill import kl
from distill.coupling.config import FlowConfig
from distill.coupling.dequantizer import SignalDequantizer
from distill.coupling.likelihood import likelihood_loss, log_mass_bound
from distill.coupling.model import CouplingFlow
from distill.coupling.multiscale import MultiScale, squeezed, unsqueezed
from distill.coupling.steps import AffineCoupling, Invertible1x1
from distill.dequantization import UniformDequantizer, bound
from distill.distillation import Distillation
from distill.flows.base import Chain, log_prob
from distill.flows.emphasis import DeEmphasis
from distill.flows.made import MADE
from distill.flows.prediction import Synthesis
from distill.flows.vectors import VectorIAF, VectorMAF, conditioning
from distill.objective import ObjectiveConfig
from tests.conftest import AUDIO, UPSAMPLE, random_mel, random_wav, randomise, small_stack, small_teacher
from wavenet.config import StackConfig
from wavenet.data import Batch
from wavenet.distributions.gaussian import Gaussian
from wavenet.distributions.logistic import DiscretizedMixtureLogistic, Logistic
from wavenet.errors import UserError
from wavenet.quantize import Grid
from wavenet.stack import Stack
from wavenet.upsample import Conditioning

# Three scales: couplings on 2, 3 and 4 of the channels of groups of 4 samples.
CONFIG = FlowConfig(
    audio=AUDIO,
    squeeze=4,
    couplings=3,
    early_every=1,
    early_channels=1,
    stack=small_stack(3, cycles=1, layers=2),
    upsample=UPSAMPLE,
    gain=2.0,
)
PLAIN = {"linear_prediction": 0}
PREDICTED = {"linear_prediction": 4}


def small_flow(scale: float = 0.3, **changes) -> CouplingFlow:
    """A randomised float64 flow."""
    torch.manual_seed(0)
    return randomise(CouplingFlow(dataclasses.replace(CONFIG, **changes)).double(), scale=scale).eval()


def frames(channels: int, hop: int) -> Conditioning:
    """Conditioning of three frames of `hop` steps."""
    generator = torch.Generator().manual_seed(5)
    return Conditioning(
        torch.randn(1, channels, 5, generator=generator).double(), torch.randn(3, hop, generator=generator).double()
    )


def parts() -> dict:
    """name -> (flow, conditioning, shape of one signal)."""
    torch.manual_seed(0)
    stack = small_stack(3, cycles=1, layers=2)
    return {
        "coupling": (AffineCoupling(stack, 5, 5), frames(5, 4), (5, 12)),
        "invertible": (Invertible1x1(6), None, (6, 8)),
        "multi-scale": (MultiScale(CONFIG, 5), frames(5, 4), (48,)),
        "one scale": (MultiScale(dataclasses.replace(CONFIG, early_channels=0), 5), frames(5, 4), (48,)),
        "permutation": (MultiScale(dataclasses.replace(CONFIG, mixing="permutation"), 5), frames(5, 4), (48,)),
    }


def part(name: str):
    flow, cond, shape = parts()[name]
    z = torch.randn(1, *shape, generator=torch.Generator().manual_seed(1)).double()
    return randomise(flow.double(), scale=0.3), cond, z


def log_det_of(function, point: torch.Tensor) -> torch.Tensor:
    """log |det| of autograd's Jacobian of a map of one signal."""
    jacobian = torch.autograd.functional.jacobian(lambda x: function(x)[0][0].flatten(), point)
    return torch.linalg.slogdet(jacobian.reshape(point.numel(), point.numel())).logabsdet


@pytest.mark.parametrize("name", list(parts()))
def test_log_det_is_autograds_and_the_inverse_is_exact_both_ways(name):
    flow, cond, z = part(name)
    x, log_det = flow(z, cond)
    back, inverse_log_det = flow.inverse(x, cond)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-9)
    torch.testing.assert_close(flow(flow.inverse(z, cond)[0], cond)[0], z, rtol=0, atol=1e-9)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=1e-10)
    assert float(log_det.detach().abs()) > 0.1
    torch.testing.assert_close(log_det[0], log_det_of(lambda v: flow(v, cond), z), rtol=0, atol=1e-10)
    torch.testing.assert_close(-log_det[0], log_det_of(lambda v: flow.inverse(v, cond), x.detach()), rtol=0, atol=1e-10)


def test_linear_prediction_is_a_flow():
    model, mel, u = small_flow(**PREDICTED), random_mel(1), random_wav(1)
    synthesis, cond = Synthesis(AUDIO.hop_length).double(), model.conditioning(mel)
    e, log_det = synthesis.inverse(u, cond)
    torch.testing.assert_close(log_det[0], log_det_of(lambda v: synthesis.inverse(v, cond), u), rtol=0, atol=1e-10)
    again, forward_log_det = synthesis(e, cond)
    torch.testing.assert_close(again, u, rtol=0, atol=1e-9)
    torch.testing.assert_close(forward_log_det, -log_det, rtol=0, atol=1e-9)


def test_squeezing_makes_channels_of_neighbours():
    signal = torch.arange(12.0)[None]
    assert squeezed(signal, 4)[0, :, 1].tolist() == [4, 5, 6, 7]
    assert torch.equal(unsqueezed(squeezed(signal, 4)), signal)


@pytest.mark.parametrize("settings", [PLAIN, PREDICTED, {"noise": "logistic"}], ids=["plain", "prediction", "logistic"])
def test_density_of_audio_is_the_change_of_variables_by_autograd(settings):
    """log_prob, in one pass, of the model's own sample: of wav itself, with emphasis, gain and prediction inside."""
    model, mel = small_flow(**settings), random_mel(1)
    z = model.noise(mel, generator=torch.Generator().manual_seed(2))
    draw = model(z, mel)
    cond = model.conditioning(mel)
    slope = log_det_of(lambda v: model.chain.inverse(v, cond), draw.wav.detach())
    torch.testing.assert_close(-draw.log_det[0], slope, rtol=0, atol=1e-9)
    if model.config.noise == "logistic":
        base = -(z + 2 * nn.functional.softplus(-z)).sum(1)
    else:
        base = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(model.log_prob(draw.wav, mel), base + slope, rtol=0, atol=1e-8)


@pytest.mark.parametrize("noise", ["logistic", "normal"])
def test_density_integrates_to_one(noise):
    """Signals of two samples: one squeezed step of two channels, two couplings, de-emphasis, over a grid."""
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, squeeze=2, couplings=2, early_channels=0, log_scale_range=(-2.0, 2.0))
    chain = Chain([randomise(MultiScale(config).double(), 3, 0.3), DeEmphasis(0.9, 2.0)])
    zero = torch.zeros((), dtype=torch.float64)
    base = Logistic(zero, zero) if noise == "logistic" else Gaussian(zero, zero)
    centre = chain(torch.zeros(1, 2, dtype=torch.float64))[0][0].detach()
    grid = torch.linspace(-1, 1, 161, dtype=torch.float64) * (30.0 if noise == "logistic" else 10.0)
    with torch.no_grad():
        plane = torch.cartesian_prod(centre[0] + grid, centre[1] + grid)
        density = log_prob(chain, base, plane, None).exp().reshape(161, 161)
    assert float(torch.trapezoid(torch.trapezoid(density, grid, dim=1), grid)) == pytest.approx(1.0, abs=1e-3)


def test_a_centred_stack_sees_as_far_ahead_as_back():
    stack = randomise(Stack(small_stack(3, cycles=1), 1, 1, centred=True).double())
    x = torch.randn(1, 1, 80, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(stack(x)[0, 0, 40], x)
    half = stack.receptive_field // 2
    assert gradient[0, 0].nonzero().flatten().tolist() == list(range(40 - half, 41 + half))
    with pytest.raises(UserError, match=r"stack\.kernel_size: found 2, expected an odd"):
        Stack(small_stack(2), 1, 1, centred=True)


def test_reach_is_as_stated():
    model = small_flow()
    z = torch.randn(1, 320, dtype=torch.float64, requires_grad=True)
    flow, t = model.flow, 162
    (gradient,) = torch.autograd.grad(flow(z, model.upsample(random_mel(1, 20)))[0][0, t], z)
    seen = gradient[0].nonzero().flatten()
    step, steps = t // flow.size, (flow.reach + 1) // flow.size - 1
    assert (int(seen.min()) // flow.size, int(seen.max()) // flow.size) == (step - steps, step + steps)
    assert max(t - int(seen.min()), int(seen.max()) - t) <= flow.reach
    assert flow.receptive_field == (2 * steps + 1) * flow.size
    assert flow.receptive_field == 4 * (2 * 3 * (1 + 1 + 2) + 1)


@pytest.mark.parametrize("settings", [PLAIN, PREDICTED], ids=["plain", "prediction"])
def test_sample_is_one_pass_and_chunks_change_nothing(settings):
    model, mel = small_flow(**settings), random_mel(2, 12)
    whole = model.sample(mel, generator=torch.Generator().manual_seed(3))
    noise = model.noise(mel, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(model(noise, mel).wav, whole, rtol=0, atol=1e-10)
    model.chunk_length = 2 * AUDIO.hop_length
    torch.testing.assert_close(model.sample(mel, generator=torch.Generator().manual_seed(3)), whole, rtol=0, atol=1e-10)
    still = model.sample(mel, temperature=0.0)
    torch.testing.assert_close(still, model(torch.zeros_like(noise), mel).wav, rtol=0, atol=1e-10)
    assert float((still - whole).abs().max()) > 0.01


@pytest.mark.parametrize("noise", ["logistic", "normal"])
def test_noise_has_the_law_that_the_density_says(noise):
    model = small_flow(noise=noise)
    z = model.noise(random_mel(4, 500), temperature=0.5, generator=torch.Generator().manual_seed(0))
    base, count = model.base(z), z.numel()
    share = base.cdf(2 * z).mean()  # the probability integral transform: uniform
    assert float(share) == pytest.approx(0.5, abs=4 / math.sqrt(12 * count))
    assert float(base.cdf(2 * z).var()) == pytest.approx(1 / 12, rel=0.03)


def test_a_fresh_coupling_is_the_identity():
    torch.manual_seed(0)
    flow = AffineCoupling(small_stack(3), 4, 0, (-40.0, 40.0)).double()
    z = torch.randn(2, 4, 12).double()
    x, log_det = flow(z)
    assert torch.equal(x, z)
    assert torch.equal(log_det, torch.zeros(2).double())


def test_gradient_of_the_likelihood():
    """Along a random direction in all weights at once, against a central difference."""
    model, mel, wav = small_flow(**PREDICTED), random_mel(), random_wav()
    batch, weights = Batch(wav, mel, None), list(model.parameters())

    def loss() -> torch.Tensor:
        return likelihood_loss(model, batch, torch.Generator().manual_seed(1))["loss"]

    gradients = torch.autograd.grad(loss(), weights)
    directions = [torch.randn(w.shape, generator=torch.Generator().manual_seed(7), dtype=w.dtype) for w in weights]
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
    values = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight.add_(step * direction)
            values.append(float(loss()))
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


VARIATIONAL = {"dequantization": "variational", "dequantizer": StackConfig(1, 2, 2, 4, 8, 4)}


def two_samples(**changes) -> CouplingFlow:
    return small_flow(audio=dataclasses.replace(AUDIO, hop_length=2), squeeze=2, early_channels=0, bits=4, **changes)


def fill(dequantizer: SignalDequantizer, signals: int, length: int, seed: int = 0):
    """Levels of 4 bits around silence (N, T), noise in [0, 1], and what is made of them."""
    generator = torch.Generator().manual_seed(seed)
    levels = Grid(4).quantize(0.3 * torch.randn(signals, length, generator=generator).double())
    uniforms = torch.rand(signals, length, generator=generator).double()
    return levels, uniforms, *dequantizer.transform(levels, uniforms)


def test_variational_noise_begins_as_the_uniform_one():
    dequantizer = SignalDequantizer(Grid(4).step, VARIATIONAL["dequantizer"]).double()
    levels, uniforms, filled, log_q = fill(dequantizer, 3, 30)
    expected, uniform_log_q = UniformDequantizer(Grid(4).step).transform(levels, uniforms)
    torch.testing.assert_close(filled, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_q, uniform_log_q, rtol=1e-10, atol=1e-10)


def test_variational_noise_stays_in_its_cell_and_knows_its_density():
    """log q = -log |det dy / du| by autograd, u uniform; the noise at t knows the levels around t and u before it."""
    dequantizer = two_samples(**VARIATIONAL).dequantizer
    levels, uniforms, filled, log_q = fill(dequantizer, 1, 40)
    assert float((filled - levels).abs().max().detach()) < Grid(4).half_step
    jacobian = torch.autograd.functional.jacobian(lambda u: dequantizer.transform(levels, u[None])[0][0], uniforms[0])
    assert (jacobian.triu(1) == 0).all()
    assert float(jacobian.tril(-1).abs().max()) > 1e-3
    torch.testing.assert_close(log_q[0], -torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-9, atol=1e-9)
    moved = levels.clone()
    moved[0, 20] += Grid(4).step
    changed = ((dequantizer.transform(moved, uniforms)[0] - moved) != (filled - levels))[0].nonzero().flatten()
    assert changed.min() == 20 - 8  # it looks ahead so far
    assert changed.max() == 20 + 8 + dequantizer.stack.receptive_field - 1


def test_any_noise_has_the_mass_for_its_mean_ratio_and_a_bound_below_it():
    """Two samples: E_q[p / q] by quadrature over the noise is the mass by quadrature over the cell."""
    model = two_samples(**VARIATIONAL)
    levels, mel, nodes = Grid(4).quantize(torch.tensor([[0.2, -0.1]]).double()), random_mel(1, 1), torch.arange(101)
    square = torch.cartesian_prod(*2 * [((nodes + 0.5) / 101).double()])
    with torch.no_grad():
        filled, log_q = model.dequantizer.transform(levels.expand(len(square), -1), square)
        ratios = model.log_prob(filled, mel.expand(len(square), -1, -1)) - log_q
        cell = levels + Grid(4).step * (square - 0.5)
        density = model.log_prob(cell, mel.expand(len(square), -1, -1))
    mass = torch.logsumexp(density, 0) - 2 * math.log(101) + 2 * math.log(Grid(4).step)
    assert float(torch.logsumexp(ratios, 0)) - 2 * math.log(101) == pytest.approx(float(mass), abs=2e-3)
    assert float(ratios.mean()) < float(mass) - 0.005


def test_variational_noise_learns_to_close_the_bound():
    """One logistic for every sample, sharper than a cell, whose masses are known: nearer to them, and not beyond."""
    grid, generator = Grid(4), torch.Generator().manual_seed(0)
    law = DiscretizedMixtureLogistic(*(torch.tensor([[value]]).double() for value in (0.0, 0.03, -4.0)), grid)
    levels = grid.value(torch.randint(7, 9, (64, 12), generator=generator), torch.float64)
    mass = float(law.log_prob(levels.reshape(-1, 1)).mean())

    def of(dequantizer: UniformDequantizer, seed: int) -> torch.Tensor:
        def log_prob(filled: torch.Tensor) -> torch.Tensor:
            return law.log_density(filled.reshape(-1, 1)).reshape(filled.shape).sum(1)

        return bound(log_prob, dequantizer, levels, 4, torch.Generator().manual_seed(seed)).mean() / levels.shape[1]

    torch.manual_seed(0)
    learned = SignalDequantizer(grid.step, StackConfig(1, 2, 2, 8, 16, 8)).double()
    optimizer = torch.optim.Adam(learned.parameters(), 0.02)
    for seed in range(150):
        optimizer.zero_grad()
        (-of(learned, seed)).backward()
        optimizer.step()
    with torch.no_grad():
        uniform, variational = (float(of(q, 1000)) for q in (UniformDequantizer(grid.step), learned))
    assert uniform < mass - 0.3
    assert mass - 0.1 * (mass - uniform) < variational < mass + 0.01


def test_nll_bounds_the_mass_of_the_recordings_cells():
    """Two samples of 4 bits: the mass of their cell by quadrature, and the loss, the mean of the bound over draws."""
    model = two_samples()
    grid = Grid(4)
    levels = grid.quantize(torch.tensor([[0.2, -0.1]]).double())
    mel = random_mel(1, 1)
    nodes = (torch.arange(51) + 0.5) / 51 - 0.5
    cell = levels + grid.step * torch.cartesian_prod(nodes, nodes).double()
    with torch.no_grad():
        density = model.log_prob(cell, mel.expand(len(cell), -1, -1))
        many = 4000
        draws = log_mass_bound(
            model,
            levels.expand(many, -1),
            mel.expand(many, -1, -1),
            None,
            torch.Generator().manual_seed(0),
        )
    log_cell = 2 * math.log(grid.step)
    mass, bound = float(torch.logsumexp(density, 0)) - math.log(len(cell)) + log_cell, float(density.mean()) + log_cell
    assert bound < mass - 0.005
    assert float(draws.mean()) == pytest.approx(bound, abs=4 * float(draws.std()) / math.sqrt(many))


def test_as_a_student_its_kl_is_the_log_ratio_over_the_whole_crop():
    """Against the estimator's own function, and the entropy against the density by the inverse; the gradient too."""
    flow, teacher, mel, wav = small_flow(0.1), small_teacher(linear_prediction=4), random_mel(), random_wav()
    step = Distillation(teacher, ObjectiveConfig({"kl": 1.0}, kl_estimator="log_ratio"), wav.shape[1])
    assert step.start > 0  # what an inverse-autoregressive student would leave out

    def loss() -> dict[str, torch.Tensor]:
        return step.loss(flow, Batch(wav, mel, None), torch.Generator().manual_seed(4))

    found = loss()
    draw = flow(flow.noise(mel, generator=torch.Generator().manual_seed(4)), mel)
    expected = kl.log_ratio(draw.base, draw.noise, draw.log_det, teacher(draw.wav, mel), draw.wav).mean() / 48
    torch.testing.assert_close(found["loss"], expected, rtol=1e-10, atol=1e-10)
    density = flow.log_prob(draw.wav, mel).mean() / 48
    torch.testing.assert_close(found["kl/entropy"], -density, rtol=1e-9, atol=1e-9)
    weight = flow.flow.steps[0].flows[1].log_scale
    (gradient,) = torch.autograd.grad(found["loss"], weight)
    with torch.no_grad():
        values = []
        for move in (1e-6, -2e-6):
            weight[0] += move
            values.append(float(loss()["loss"]))
    assert float(gradient[0]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


class CouplingAsMADE(nn.Module):
    """A coupling's network as VectorIAF wants one: (B, 2, m) of vectors that are a, then b; nothing for those of a."""

    def __init__(self, coupling: AffineCoupling, steps: int) -> None:
        super().__init__()
        self.coupling, self.steps = coupling, steps
        self.order = list(range(sum(coupling.sizes) * steps))

    def forward(self, vector: torch.Tensor, _: torch.Tensor | None) -> torch.Tensor:
        kept = vector.unflatten(1, (-1, self.steps))[:, : self.coupling.sizes[0]]
        params = self.coupling.stack(kept, None).flatten(1).unflatten(1, (2, -1))
        return torch.cat([torch.zeros(len(vector), 2, kept[0].numel(), dtype=vector.dtype), params], 2)


@pytest.mark.parametrize("name", ["coupling on audio", "masked vector"])
def test_realnvp_is_the_iaf_and_the_maf_whose_first_half_conditions(name):
    """As an IAF, m passes back; as a MAF with s' = -s and m' = -m exp(-s), m passes forth; as a coupling, one each."""
    torch.manual_seed(0)
    wide, steps = (-40.0, 40.0), 6  # in which the scale of a, which nothing conditions, is 1 to rounding
    if name == "coupling on audio":
        coupling = randomise(AffineCoupling(small_stack(3, cycles=1, layers=2), 4, 0, wide).double(), scale=0.2)
        network: nn.Module = CouplingAsMADE(coupling, steps)
        z = torch.randn(3, 4, steps).double()
        x, log_det = coupling(z)
        back, back_log_det = coupling.inverse(z)
        z, x, back = (value.detach().flatten(1) for value in (z, x, back))
    else:
        # MADE whose units all have degree 1 of coordinates 0, 1 | 2, 3, 4: these see 0 and 1, which see nothing.
        made = randomise(MADE(5, [8, 8], degrees=[1]).double(), scale=0.4)
        with torch.no_grad():
            made.last.bias.unflatten(0, (2, 5))[:, :2] = 0.0
        network = made
        z = torch.randn(3, 5).double()
        with torch.no_grad():
            loc, log_scale = made(torch.cat([z[:, :2], torch.full((3, 3), 9.0).double()], 1)).unbind(1)
            x = torch.cat([z[:, :2], (z * log_scale.exp() + loc)[:, 2:]], 1)
            back = torch.cat([z[:, :2], ((z - loc) * (-log_scale).exp())[:, 2:]], 1)
        log_det, back_log_det = log_scale[:, 2:].sum(1), -log_scale[:, 2:].sum(1)
    size = z.shape[1]
    iaf, maf = VectorIAF(size, [size], log_scale_range=wide), VectorMAF(size, [size], log_scale_range=wide)
    iaf.network = maf.flow.network = network
    exact = {"rtol": 1e-12, "atol": 1e-12}
    with torch.no_grad():
        for found, expected in (
            (iaf(z), (x, log_det)),
            (iaf.inverse(z), (back, back_log_det)),
            (maf(z), (back, back_log_det)),
            (maf.inverse(z), (x, log_det)),
        ):
            torch.testing.assert_close(found[0], expected[0], **exact)
            torch.testing.assert_close(found[1], expected[1], **exact)
    assert float((x - z).abs().max()) > 0.1


def test_zuko_agrees_on_an_affine_coupling():
    zuko = pytest.importorskip("zuko")
    coupling, cond, z = part("coupling")
    kept = torch.zeros(z.shape[1:], dtype=torch.bool)
    kept[: coupling.sizes[0]] = True

    def meta(known: torch.Tensor):
        loc, log_scale = coupling.affine(known.unflatten(1, (-1, z.shape[2])), cond)
        return torch.distributions.AffineTransform(loc.flatten(1), log_scale.exp().flatten(1))

    transform = zuko.transforms.CouplingTransform(meta, kept.flatten())
    x, log_det = coupling(z, cond)
    torch.testing.assert_close(transform(z.flatten(1)), x.flatten(1), rtol=1e-12, atol=1e-12)
    ours = transform.log_abs_det_jacobian(z.flatten(1), x.flatten(1))
    torch.testing.assert_close(ours.reshape(1, -1).sum(1), log_det, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"squeeze": 3}, "squeeze: found 3, expected 2 or more, and a divisor of audio.hop_length = 16"),
        ({"early_channels": 2}, "early_channels: found 2, expected 0 or more, so that of squeeze = 4 channels 2 are"),
        ({"stack": small_stack(2)}, "stack.kernel_size: found 2, expected an odd number"),
        ({"couplings": 0}, "couplings: found 0"),
        ({"log_scale_range": (1.0, 2.0)}, "log_scale_range: found"),
        ({"linear_prediction": 99}, "linear_prediction: found 99, expected 0"),
        ({"bits": 1}, "bits: found 1"),
    ],
)
def test_mistakes_in_a_recipe(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **changes)


def test_a_wrong_length_is_named():
    model = small_flow()
    with pytest.raises(UserError, match=r"wav: found shape \(1, 47\), expected \(B, 48\)"):
        model.log_prob(random_wav(1)[:, 1:], random_mel(1))
    with pytest.raises(UserError, match=r"degrees: found \[4\], expected numbers from -1 to 3"):
        MADE(5, [8], degrees=[4])
    assert conditioning(torch.zeros(1, 2), 3).length == 3
