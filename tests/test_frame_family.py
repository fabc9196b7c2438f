"""The family on mel frames and distillation of vectors: closed forms, quadrature, the command on a few clips."""

import json
import math
import shutil

import pytest
import torch
from torch.distributions import LowRankMultivariateNormal

from distill import models
from distill.latent.frames import FIGURES, SECTION, Family, bound, draw, main, passes_of
from distill.latent.segmentvae import SegmentConfig, SegmentVAE
from distill.vectors.data import VectorData
from distill.vectors.distillation import distil, divergence, drawn
from distill.vectors.model import VectorConfig, VectorModel
from wavenet.arguments import to_dict
from wavenet.config import AudioConfig, DataConfig, TrainConfig
from wavenet.data import corpus_folder
from wavenet.errors import UserError

AUDIO = AudioConfig(8000, 256, 256, 64, 8, 0.0, 4000.0)
BANDS = AUDIO.n_mels


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus of five bundled clips, two of them held out, and the command's output on it."""
    place = tmp_path_factory.mktemp("frames")
    (place / "corpus" / "wavs").mkdir(parents=True)
    clips = sorted((corpus_folder("bundled") / "wavs").iterdir(), key=lambda path: path.stat().st_size)[:5]
    for clip in clips:
        shutil.copy(clip, place / "corpus" / "wavs")
    (place / "corpus" / "metadata.csv").write_text("".join(f"{clip.stem}|text|text\n" for clip in clips))
    for split, part in (("train", clips[:2]), ("dev", clips[2:3]), ("test", clips[3:])):
        (place / "corpus" / f"{split}.txt").write_text("".join(f"{clip.stem}\n" for clip in part))
    (place / "page.md").write_text(f"# Map\n\n<!-- {SECTION}:begin -->\n<!-- {SECTION}:end -->\n\nAfter.\n")
    assert main(call(place)) == 0
    return place


def call(place, *extra):
    audio = [f"--audio.{name}={value}" for name, value in to_dict(AUDIO).items()]
    return [
        *("--data.root", str(place / "corpus"), *audio, "--dimensions", "3", "--steps", "30"),
        *("--out", str(place / "out"), "--page", str(place / "page.md"), *extra),
    ]


def flow(direction, size=2, seed=0, gain=3.0):
    """A flow far from the identity, float64."""
    torch.manual_seed(seed)
    model = VectorModel(VectorConfig(size, direction, flows=2, hidden=[16], log_scale_range=(-1.0, 1.0))).double()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "last" in name:
                value.mul_(gain)
    return model


def test_the_command_fills_the_page_with_what_it_measured(place, capsys):
    figures = json.loads((place / "out" / FIGURES).read_text())
    page = (place / "page.md").read_text()
    assert page.endswith("After.\n")
    rows = {row["title"].split(",")[0]: row for row in figures["rows"]}
    assert list(rows) == ["Gaussian", "probabilistic PCA", "MAF", "IAF", "VAE"]  # the last twice, by posterior
    assert len(figures["rows"]) == 6
    for row in figures["rows"]:
        assert f"| {row['title']} | {row['signal']} | {row['density']} |" in page
        assert f"{row['nats']:.2f} ± {row['standard_error']:.2f}" in page
        assert row["density_rate"] > 0
        assert row["sampling_rate"] > 0
    passes = {row["title"]: (row["density_passes"], row["sampling_passes"]) for row in figures["rows"]}
    assert passes["MAF"] == (1, BANDS)
    assert passes["IAF"] == (BANDS, 1)
    assert passes["VAE, 3 dimensions"] == passes["VAE, IAF posterior, 3 dimensions"] == (2, 1)
    assert "| lower bound | 2 |" in page
    assert "≤ " in page
    # Trained runs are kept: the same call measures again, and no run's weights move.
    before = {name: (place / "out" / name / "checkpoint.pt").read_bytes() for name in ("maf", "iaf")}
    assert main(call(place)) == 0
    assert before == {name: (place / "out" / name / "checkpoint.pt").read_bytes() for name in before}
    again = json.loads((place / "out" / FIGURES).read_text())
    assert [row["nats"] for row in again["rows"][:4]] == [row["nats"] for row in figures["rows"][:4]]
    assert again["kl"] == figures["kl"]


def test_closed_forms_are_those_of_the_frames(place):
    """The Gaussian's mean log density of its own data is minus its entropy; PCA against a low-rank normal."""
    family = Family(place / "out", AUDIO, DataConfig(root=str(place / "corpus")), TrainConfig(steps=30), 3)
    gaussian, ppca = family.systems()[:2]
    rows = family.frames.double()
    covariance = torch.cov(rows.T, correction=0)
    entropy = 0.5 * (BANDS * (1 + math.log(2 * math.pi)) + torch.logdet(covariance))
    ratio = (len(rows) - 1) / len(rows)  # the fit divides by N - 1
    expected = -entropy - 0.5 * BANDS * (ratio - 1 - math.log(ratio))
    assert float(gaussian.log_density(rows).mean()) == pytest.approx(float(expected), rel=1e-9)
    mean, std = rows.mean(0), rows.std(0)
    values, vectors = torch.linalg.eigh(torch.cov(((rows - mean) / std).T, correction=0))
    noise = values[:-3].mean()
    factor = vectors[:, -3:] * (values[-3:] - noise).sqrt()
    oracle = LowRankMultivariateNormal(mean, std[:, None] * factor, std.square() * noise)
    held_out = torch.cat(family.held_out)
    torch.testing.assert_close(ppca.log_density(held_out), oracle.log_prob(held_out.double()))
    for system in (gaussian, ppca):
        draws = system.sample(20_000)
        far = (draws.mean(0) - mean) / std
        assert float(far.abs().max()) < 0.05
        torch.testing.assert_close(draws.std(0) / std, torch.ones_like(std), rtol=0, atol=0.05)


def test_nats_are_means_over_frames_and_their_error_is_by_clips(place):
    family = Family(place / "out", AUDIO, DataConfig(root=str(place / "corpus")), TrainConfig(steps=30), 3)
    system = family.systems()[0]
    nats, error = family._nats(system)
    first, second = (-system.log_density(clip) for clip in family.held_out)
    assert nats == pytest.approx(float(torch.cat([first, second]).mean()))
    whole = len(first) + len(second)
    parts = [float(one.sum()) - nats * len(one) for one in (first, second)]
    assert error == pytest.approx(math.sqrt(2 * sum(part**2 for part in parts)) / whole)
    assert error > 0


def test_the_bound_and_the_draws_of_a_linear_vae_are_a_normals():
    """Both networks linear: x is normal, so that the bound lies below its density, and draws have its covariance."""
    torch.manual_seed(0)
    vae = SegmentVAE(SegmentConfig(AUDIO, frames=1, dimensions=2, layers=0))
    vae.set_statistics(torch.linspace(-1, 1, BANDS), torch.linspace(0.5, 2, BANDS))
    decoder = vae.decoder[-1]
    with torch.no_grad():
        weight = decoder.weight * vae.std[:, None]
        law = LowRankMultivariateNormal(
            vae.decode(torch.zeros(2))[:, 0], weight, (vae.log_noise.exp() * vae.std).square()
        )
        drawn_frames = draw(vae, 200_000)
        torch.testing.assert_close(drawn_frames.mean(0), law.mean, rtol=0, atol=0.02)
        torch.testing.assert_close(torch.cov(drawn_frames.T), law.covariance_matrix, rtol=0, atol=0.05)
        found = torch.stack([bound(vae, drawn_frames[:500], 1) for _ in range(64)]).mean(0)
        assert bool((found <= law.log_prob(drawn_frames[:500]) + 0.5).all())
        assert float(found.mean()) < float(law.log_prob(drawn_frames[:500]).mean())


@pytest.mark.parametrize("direction", ["maf", "iaf"])
def test_a_draw_knows_its_density(direction):
    model = flow(direction, size=4)
    log_q, vectors = drawn(model, 50, torch.Generator().manual_seed(1))
    torch.testing.assert_close(log_q, model.log_prob(vectors))


def test_divergence_is_the_integral():
    student, teacher = flow("iaf", seed=1), flow("maf", seed=2)
    kl, error = divergence(student, teacher, 40_000, torch.Generator().manual_seed(0))
    axis = torch.linspace(-14, 14, 1401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_q, log_p = (torch.cat([one.log_prob(part) for part in grid.split(200_000)]) for one in (student, teacher))
    cell = float(axis[1] - axis[0]) ** 2
    assert float(log_q.exp().sum()) * cell == pytest.approx(1, abs=1e-4)
    integral = float((log_q.exp() * (log_q - log_p)).sum()) * cell
    assert integral > 0.05
    assert kl == pytest.approx(integral, abs=4 * error)


def test_distilling_brings_the_student_to_the_teacher(tmp_path):
    teacher = flow("maf", seed=3).float()
    rows = teacher.sample(4000, torch.Generator().manual_seed(0))
    data = VectorData("draws", rows, rows[:500], rows[:500])
    training = TrainConfig(steps=300, lr=1e-2, batch_size=256, crop_length=1, ema_decay=0.9, threads=1)
    before = flow("iaf", gain=0.0).float()
    before.whiten(rows)
    generator = torch.Generator().manual_seed(0)
    began, _ = divergence(before, teacher, 4000, generator)
    assert distil(teacher, data, training, tmp_path / "run") == 0
    student = models.load(tmp_path / "run")
    assert student.config.direction == "iaf"
    ended, error = divergence(student, teacher, 4000, generator)
    assert ended < 0.25 * began
    assert ended > -4 * error


def test_another_teacher_is_not_resumed_with(tmp_path):
    rows = torch.randn(100, 2)
    data = VectorData("draws", rows, rows, rows)
    training = TrainConfig(steps=2, batch_size=8, crop_length=1, threads=1)
    assert distil(flow("maf", seed=3).float(), data, training, tmp_path / "run") == 0
    with pytest.raises(UserError, match="teacher"):
        distil(flow("maf", seed=4).float(), data, training, tmp_path / "run")


def test_passes_are_counted_as_they_happen():
    first, second = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)

    def work():
        first(second(torch.zeros(1)))
        second(torch.zeros(1))

    assert passes_of([[first, second]], work) == 2
    assert passes_of([[first], [second]], work) == 3
    assert passes_of([], work) == 1


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--dimensions", str(BANDS)], f"--dimensions: found {BANDS}, expected 1 to {BANDS - 1}"),
        (["--page", "nowhere.md"], "nowhere.md: found no markers"),
        (["--data.root", "nowhere"], "nowhere"),
        (["--steps", "0"], "train.steps: found 0"),
    ],
)
def test_mistakes_are_one_line(place, extra, message, capsys):
    assert main(call(place, *extra)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("distill-frame-family: ")
    assert message in line
