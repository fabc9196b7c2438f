"""Density estimation on vectors: known densities, a fit that reaches one, its figures, the commands, the checkpoint."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from distill import evaluate, models, synthesize
from distill.flows.base import Inverse
from distill.vectors import costs, data, train
from distill.vectors.baselines import Baseline, fit_baselines
from distill.vectors.densities import DENSITIES, divergence
from distill.vectors.model import VectorConfig, VectorModel
from distill.vectors.normality import normality
from tests.conftest import randomise
from wavenet import checkpoint
from wavenet.arguments import to_dict
from wavenet.errors import UserError


@pytest.mark.parametrize("name", list(DENSITIES))
def test_density_integrates_to_one_and_its_draws_follow_it(name):
    """Mass by quadrature; mean of -log p over draws is the entropy; quadrants hold as many draws as mass."""
    density = DENSITIES[name]()
    kl, entropy = divergence(density, density.log_prob, 150)
    assert kl == 0
    doubled, _ = divergence(density, lambda x: density.log_prob(x) - math.log(2), 150)
    assert doubled == pytest.approx(math.log(2), abs=1e-6)  # the sum of the masses, times log 2
    draws = density.sample(4000, torch.Generator().manual_seed(0))
    values = -density.log_prob(draws)
    assert abs(float(values.mean()) - entropy) < 4 * float(values.std()) / 4000**0.5
    axis = torch.linspace(-density.extent, density.extent, 150, dtype=torch.float64)
    plane = torch.cartesian_prod(axis, axis)
    mass = density.log_prob(plane).exp() * float(axis[1] - axis[0]) ** 2
    cut = (axis[[77, 72]] + axis[[78, 73]]) / 2  # between the sum's points: no mass lies on it
    for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        side = torch.tensor(signs).double()
        expected = float(mass[(side * (plane - cut) > 0).all(1)].sum())
        share = float((side * (draws - cut) > 0).all(1).double().mean())
        assert abs(share - expected) < 0.035  # four standard errors of 4000 draws


def test_divergence_against_two_normals():
    """KL(eight blobs || one normal) has its closed form from the blobs' second moments."""
    density = DENSITIES["eight-gaussians"]()
    normal = torch.distributions.Normal(torch.zeros(2).double(), 2.0)
    kl, entropy = divergence(density, lambda x: normal.log_prob(x).sum(1))
    cross = math.log(2 * math.pi * 4) + (2.0**2 + 2 * 0.2**2) / 8
    assert kl == pytest.approx(cross - entropy, abs=1e-8)


def test_tables_are_split_once_and_whole():
    from sklearn.datasets import load_breast_cancer, load_digits

    for name, loaded in (("cancer", load_breast_cancer()), ("digits", load_digits())):
        found = data.open_data(name)
        rows = torch.cat([found.train, found.validation, found.test])
        expected = torch.from_numpy(loaded.data).float()
        expected = (expected + expected.mean(0) / 100).log() if name == "cancer" else expected
        assert torch.equal(rows.sort(0).values, expected.sort(0).values)
        assert len(found.test) == len(rows) // 5
        assert torch.equal(found.test, data.open_data(name).test)
    assert torch.equal(found.train, found.train.round())
    assert found.step == 1.0


def test_model_has_one_density_in_the_datas_units():
    """Whitening moves nothing but units: log_prob of x = shift + L z is that of z, less the sum of log L_ii."""
    torch.manual_seed(0)
    model = randomise(VectorModel(VectorConfig(3, flows=2, hidden=[8])).double(), 1, 0.1)
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = model.log_prob(x)
    shift, factor = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([[0.5, 0, 0], [1, 2, 0], [-3, 1, 10]]).double()
    model.whitening.shift.copy_(shift)
    model.whitening.factor.copy_(factor)
    after = model.log_prob(shift + x @ factor.T)
    torch.testing.assert_close(after, before - math.log(10.0), rtol=1e-10, atol=1e-10)
    noise = model.noise(x)
    torch.testing.assert_close(model.chain(noise)[0], x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", ["reverse", "random"])
def test_iaf_is_fitted_through_its_sequential_inverse(order):
    """The likelihood of either direction moves every weight; gradients are those of finite differences."""
    for direction in ("maf", "iaf"):
        torch.manual_seed(0)
        model = VectorModel(VectorConfig(3, direction, 2, [8], order)).double()
        assert isinstance(model.chain.flows[0], Inverse) == (direction == "maf")
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        model.log_prob(x).sum().backward()
        for flow in (flow for flow in model.chain.flows if list(flow.children())):
            weight = (flow.flow if direction == "maf" else flow).network.last.weight
            place = weight.grad.abs().argmax()
            step = torch.zeros_like(weight).flatten()
            step[place] = 1e-6
            with torch.no_grad():
                weight.add_(step.view_as(weight))
                above = float(model.log_prob(x).sum())
                weight.sub_(2 * step.view_as(weight))
                below = float(model.log_prob(x).sum())
                weight.add_(step.view_as(weight))
            assert float(weight.grad.flatten()[place]) == pytest.approx((above - below) / 2e-6, rel=1e-5)


def test_commands_for_audio_refuse_it_in_one_line(tmp_path, capsys):
    model = VectorModel(VectorConfig(2, flows=1, hidden=[4]))
    path = tmp_path / checkpoint.FILE_NAME
    checkpoint.save(path, kind=train.KIND, config=to_dict(model.config), model_state=model.state_dict())
    data_folder, out = str(tmp_path / "data"), str(tmp_path / "out")
    assert synthesize.main([str(path), data_folder, "--out", out]) == 2
    assert evaluate.main([str(path), "--data", data_folder, "--out", out]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert "kind 'vectors', expected one of teacher, student, flow" in line


def test_diagonal_whitening_leaves_the_correlations():
    rows = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    for whitening, correlated in (("full", False), ("diagonal", True)):
        model = VectorModel(VectorConfig(2, flows=1, hidden=[4], whitening=whitening))
        model.whiten(rows)
        covariance = torch.cov(model.whitening.inverse(rows)[0].T)
        torch.testing.assert_close(covariance.diagonal(), torch.ones(2), rtol=1e-4, atol=1e-4)
        assert (abs(float(covariance[0, 1])) > 0.5) == correlated


def test_normality_of_true_noise_and_of_what_is_not():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(5000, 3, generator=generator, dtype=torch.float64)
    true = normality(noise)
    assert true.ks < true.ks_limit
    assert true.ks_radius < true.ks_radius_limit
    assert true.gaussian_kl < 0.005
    assert true.ks == pytest.approx(max(stats.kstest(noise[:, i].numpy(), "norm").statistic for i in range(3)))
    wide = normality(noise * torch.tensor([1.0, 1.3, 1.0]))
    assert wide.ks > wide.ks_limit
    assert wide.worst == 1
    assert wide.gaussian_kl == pytest.approx(0.5 * (1.69 - 1 - math.log(1.69)), abs=0.02)
    # Normal in every coordinate, and not together: only the radius sees it.
    shell = normality(noise[:, :1].abs() * torch.sign(noise))
    assert shell.ks < 1.5 * shell.ks_limit
    assert shell.ks_radius > 5 * shell.ks_radius_limit


def test_baselines_are_the_normal_and_a_mixture():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(900, 2, generator=generator) @ torch.tensor([[1.0, 0.5], [0.0, 0.3]]) + 3
    rows[::2] += 4
    train_rows, validation = rows[:600], rows[600:]
    fitted = fit_baselines(train_rows, validation)
    mean, covariance = train_rows.double().mean(0), torch.cov(train_rows.double().T, correction=0)
    expected = torch.distributions.MultivariateNormal(mean, covariance).log_prob(validation.double())
    plain = Baseline(train_rows, 1, 1e-6)
    torch.testing.assert_close(plain.log_prob(validation), expected, rtol=1e-4, atol=1e-4)
    assert float(fitted["Gaussian"].log_prob(validation).mean()) >= float(expected.mean()) - 1e-4
    assert float(fitted["mixture"].log_prob(validation).mean()) > float(expected.mean()) + 0.2
    assert fitted["mixture"].components >= 2


def test_maf_reaches_a_density_that_it_can_make(tmp_path, monkeypatch):
    """The banana is one affine step from noise: the fit comes near 0 nats, its image near normal; the run reloads."""
    banana = data.open_data("banana")
    few = data.VectorData("banana", banana.train[:4000], banana.validation[:500], banana.test[:2000], banana.density)
    monkeypatch.setattr(train, "open_data", lambda name: few)
    run = tmp_path / "run"
    page = tmp_path / "page.md"
    page.write_text("<!-- vectors-run:begin -->\n<!-- vectors-run:end -->\n")
    arguments = ["--data", "banana", "--flows", "1", "--hidden", "16", "16", "--steps", "500", "--out", str(run)]
    assert train.main([*arguments, "--page", str(page)]) == 0
    report = json.loads((run / train.REPORT).read_text())
    found = report["systems"]
    assert found["MAF"]["kl"] < 0.1 < found["Gaussian"]["kl"]
    assert found["MAF"]["nats"] > found["Gaussian"]["nats"] + 0.3
    # KL = E[log p - log q]: held-out nats and quadrature tell the same, within the error of the draws.
    assert found["MAF"]["kl"] + found["MAF"]["nats"] == pytest.approx(-report["entropy"], abs=0.1)
    assert report["noise"]["ks"] < 0.1
    assert "| MAF |" in page.read_text()
    assert (tmp_path / "vectors-run.png").stat().st_size > 10000
    model = models.load(run)
    assert isinstance(model, VectorModel)
    assert -float(model.bound(few.test).mean()) == pytest.approx(-found["MAF"]["nats"], abs=1e-4)
    assert train.main(["--data", "banana", "--out", str(run), "--flows", "2"]) == 2


def test_levels_are_trained_on_their_bound():
    """A step of the variational model moves flow and dequantiser; bounds are of masses, not of densities."""
    config = VectorConfig(4, flows=2, hidden=[8], step=1.0, dequantization="variational")
    torch.manual_seed(0)
    model = VectorModel(config)
    levels = torch.randint(0, 3, (64, 4), generator=torch.Generator().manual_seed(0)).float()
    model.whiten(levels)
    factor = model.whitening.factor
    torch.testing.assert_close(factor @ factor.T, torch.cov(levels.T) + torch.eye(4) / 12, rtol=1e-5, atol=1e-5)
    (-model.bound(levels, 1, torch.Generator().manual_seed(0)).mean()).backward()
    missing = [name for name, value in model.named_parameters() if value.grad is None]
    assert not missing
    # The masses of all 3^4 vectors, and of those beyond, sum to 1: bounds sum to less.
    every = torch.cartesian_prod(*[torch.arange(-2.0, 6.0)] * 4)
    with torch.no_grad():
        total = float(model.bound(every, 32, torch.Generator().manual_seed(0)).exp().sum())
    assert 0.3 < total < 1
    again = VectorModel(config)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.dequantizer.scale, model.dequantizer.scale)


def test_costs_are_counted_and_written(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- vector-costs:begin -->\n<!-- vector-costs:end -->\n")
    out = tmp_path / "costs.json"
    sizes = ["--sizes", "1", "3", "8", "--width", "8", "--batch", "4", "--repeats", "1"]
    assert costs.main([*sizes, "--out", str(out), "--page", str(page)]) == 0
    for row in json.loads(out.read_text())["rows"]:
        one = (row["flow"] == "MAF") == (row["operation"] == "density")
        assert row["passes"] == (1 if one else row["size"])
        assert row["ms"] > 0
    assert "| 8 | 1: " in page.read_text()
    assert (tmp_path / "vector-costs.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (train.main, ["--data", "rings"], "rings"),
        (train.main, ["--data", "moons", "--dequantization", "variational"], "levels"),
        (train.main, ["--direction", "up"], "maf or iaf"),
        (train.main, ["--flows", "0"], "flows"),
        (train.main, ["--hidden", "0"], "hidden"),
        (train.main, ["--page", "nowhere.md"], "markers"),
        (costs.main, ["--repeats", "0"], "repeats"),
        (costs.main, ["--sizes", "0"], "size"),
        (costs.main, ["--width", "3", "--sizes", "16"], "hidden"),
    ],
)
def test_user_mistakes_are_one_line_and_status_2(main, arguments, message, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path / "out.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_column_of_one_value_is_refused():
    with pytest.raises(UserError, match="constant"):
        VectorModel(VectorConfig(2, flows=1, hidden=[4])).whiten(torch.tensor([[1.0, 2.0], [1.0, 3.0]]))


def test_whitened_model_without_flows_to_speak_of_is_the_gaussian_baseline():
    rows = data.open_data("cancer")
    model = VectorModel(VectorConfig(30, flows=1, hidden=[32])).double()
    model.whiten(rows.train)
    torch.nn.init.zeros_(model.chain.flows[0].flow.network.last.weight)
    with torch.no_grad():
        mine = float(model.log_prob(rows.validation.double()).mean())
    assert mine == pytest.approx(float(Baseline(rows.train, 1, 1e-6).log_prob(rows.validation).mean()), abs=0.2)


def test_extent_holds_the_mass():
    for density in (kind() for kind in DENSITIES.values()):
        edge = np.linspace(-density.extent, density.extent, 200)
        border = torch.tensor([(x, y) for x in edge for y in (-density.extent, density.extent)], dtype=torch.float64)
        for points in (border, border[:, [1, 0]]):
            assert float(density.log_prob(points).exp().max()) < 1e-6
