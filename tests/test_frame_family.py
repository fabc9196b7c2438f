"""The family on mel frames and distillation of vectors: closed forms, quadrature, the command on a few clips."""

import json
import math
import shutil

import pytest
import torch
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal

from distill import models
from distill.latent.frame_systems import bound, draw
from distill.latent.frames import FIGURES, SECTION, Family, main
from distill.latent.segmentvae import SegmentConfig, SegmentVAE
from distill.speed.passes import passes_of
from distill.vectors.data import VectorData
from distill.vectors.distillation import begun, distil, divergence, drawn
from distill.vectors.model import VectorConfig, VectorModel
from wavenet.arguments import to_dict
from wavenet.config import AudioConfig, DataConfig, TrainConfig
from wavenet.data import corpus_folder, load_clip, open_corpus
from wavenet.errors import UserError
from wavenet.features import LogMel

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


def family(place, **changes):
    return Family(place / "out", AUDIO, DataConfig(root=str(place / "corpus")), TrainConfig(steps=30, **changes), 3)


def test_the_command_fills_the_page_with_what_it_measured(place):
    figures = json.loads((place / "out" / FIGURES).read_text())
    page = (place / "page.md").read_text()
    assert page.endswith("After.\n")
    rows = {row["title"].removesuffix(", 3 dimensions"): row for row in figures["rows"]}
    vaes = ["VAE", "VAE, IAF posterior"]
    assert list(rows) == ["Gaussian, full covariance", "probabilistic PCA", "MAF", "IAF", *vaes]
    passes = {name: (row["density_passes"], row["sampling_passes"]) for name, row in rows.items()}
    assert passes["MAF"] == (1, BANDS)
    assert passes["IAF"] == (BANDS, 1)
    assert passes["VAE"] == (2, 1)
    assert passes["VAE, IAF posterior"] == (3, 1)
    assert rows["MAF"]["density_rate"] > 2 * rows["MAF"]["sampling_rate"]
    assert rows["IAF"]["sampling_rate"] > 2 * rows["IAF"]["density_rate"]
    lines = page.splitlines()
    for name, row in rows.items():
        cells = next(line for line in lines if line.startswith(f"| {row['title']} |")).strip("| ").split(" | ")
        assert cells[2:4] == ["lower bound" if name in vaes else "exact", str(row["density_passes"])]
        assert float(cells[4].replace(",", "")) == pytest.approx(row["density_rate"], rel=0.06)
        assert cells[5].startswith("≤ ") == (name in vaes)
        stated = f"{row['nats']['value']:.2f} ± {row['nats']['standard_error']:.2f}"
        assert cells[5].removeprefix("≤ ") == stated
        if name != "Gaussian, full covariance":
            below = row["below_gaussian"]
            assert cells[6] == f"{below['value']:.2f} ± {below['standard_error']:.2f}"
            gaussian = rows["Gaussian, full covariance"]["nats"]["value"]
            assert below["value"] == pytest.approx(gaussian - row["nats"]["value"])
        assert cells[-2] == str(row["sampling_passes"])
        assert float(cells[-1].replace(",", "")) == pytest.approx(row["sampling_rate"], rel=0.06)
    kl = figures["kl"]["trained"]
    assert f"{kl['value']:.2f} ± {kl['standard_error']:.2f} as it is." in page


def test_the_same_call_measures_the_same_and_other_steps_are_other_runs(place):
    (runs,) = (place / "out").glob("*-steps-*")
    names = ("maf", "iaf", "vae-gaussian", "vae-iaf")
    before = {name: (runs / name / "checkpoint.pt").read_bytes() for name in names}
    figures = json.loads((place / "out" / FIGURES).read_text())
    assert main(call(place)) == 0
    again = json.loads((place / "out" / FIGURES).read_text())
    for ours, theirs in zip(again["rows"], figures["rows"], strict=True):
        assert ours["nats"] == theirs["nats"]
    assert again["kl"] == figures["kl"]
    assert main(call(place, "--steps", "2")) == 0
    assert before == {name: (runs / name / "checkpoint.pt").read_bytes() for name in names}


def test_a_run_on_other_mels_is_refused_before_it_is_continued(place, capsys):
    capsys.readouterr()
    assert main(call(place, "--audio.f_max", "3000")) == 2
    assert "data.name" in capsys.readouterr().err.splitlines()[-1]


def test_frames_are_those_of_the_clips_of_their_split(place):
    """Against the splits as they were written down, by the extractor itself."""
    found, log_mel = family(place), LogMel(AUDIO)

    def of(split):
        names = sorted((place / "corpus" / f"{split}.txt").read_text().split())
        corpus = open_corpus(str(place / "corpus"), AUDIO)
        wavs = {clip.id: load_clip(clip, AUDIO) for clip in (*corpus.train, *corpus.dev, *corpus.test)}
        return [log_mel(wavs[name][None])[0].T for name in names]

    torch.testing.assert_close(found.frames, torch.cat(of("train")))
    torch.testing.assert_close(found.dev, torch.cat(of("dev")))
    for ours, theirs in zip(found.held_out, of("test"), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_closed_forms_are_those_of_the_frames(place):
    """The Gaussian against torch's, PCA against a low-rank normal; their draws by mean and deviation."""
    found = family(place)
    gaussian, ppca = found.systems()[:2]
    rows, held_out = found.frames.double(), torch.cat(found.held_out)
    generator = torch.Generator().manual_seed(0)
    oracle = MultivariateNormal(rows.mean(0), torch.cov(rows.T))
    ours = gaussian.log_density(held_out, generator)
    torch.testing.assert_close(ours.double(), oracle.log_prob(held_out.double()), rtol=1e-4, atol=1e-3)
    mean, std = rows.mean(0), rows.std(0)
    values, vectors = torch.linalg.eigh(torch.cov(((rows - mean) / std).T, correction=0))
    noise = values[:-3].mean()
    factor = vectors[:, -3:] * (values[-3:] - noise).sqrt()
    low_rank = LowRankMultivariateNormal(mean, std[:, None] * factor, std.square() * noise)
    ours = ppca.log_density(held_out, generator)
    torch.testing.assert_close(ours.double(), low_rank.log_prob(held_out.double()), rtol=1e-4, atol=1e-3)
    for system, law in ((gaussian, oracle), (ppca, low_rank)):
        draws = system.sample(200_000, generator).double()
        scale = std[:, None] * std
        torch.testing.assert_close((draws.mean(0) - mean) / std, torch.zeros(BANDS).double(), rtol=0, atol=0.02)
        torch.testing.assert_close(torch.cov(draws.T) / scale, law.covariance_matrix / scale, rtol=0, atol=0.02)


def test_nats_are_means_over_frames_and_their_error_is_by_clips(place):
    found = family(place)
    system = found.systems()[0]
    clips = found.nats(system)
    nats, error = found.mean(clips)
    first, second = (-system.log_density(clip, torch.Generator()).double() for clip in found.held_out)
    assert nats == pytest.approx(float(torch.cat([first, second]).mean()))
    whole = len(first) + len(second)
    parts = [float(one.sum()) - nats * len(one) for one in (first, second)]
    assert error == pytest.approx(math.sqrt(2 * sum(part**2 for part in parts)) / whole)
    assert error > 0
    assert found.mean(clips[:1]).standard_error is None


def test_a_linear_vae_with_the_true_posterior_states_the_density_itself():
    """The bound is tight there: mean of one-draw bounds and log density agree; draws have the density's covariance."""
    torch.manual_seed(0)
    vae = SegmentVAE(SegmentConfig(AUDIO, frames=1, dimensions=2, layers=0))
    vae.set_statistics(torch.linspace(-1, 1, BANDS), torch.linspace(0.5, 2, BANDS))
    decoder = vae.decoder[-1]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        orthogonal = torch.linalg.qr(torch.randn(BANDS, 2))[0] * torch.tensor([2.0, 0.7])
        decoder.weight.copy_(orthogonal)
        inner = orthogonal.square().sum(0) + vae.log_noise.exp().square()
        vae.heads.weight.copy_(torch.cat([(orthogonal / inner).T, torch.zeros(2, BANDS)]))
        vae.heads.bias.copy_(
            torch.cat([-(orthogonal / inner).T @ decoder.bias, (vae.log_noise.exp() / inner.sqrt()).log()])
        )
        weight, noise = decoder.weight * vae.std[:, None], vae.log_noise.exp() * vae.std
        law = LowRankMultivariateNormal(vae.decode(torch.zeros(2))[:, 0], weight, noise.square())
        frames = draw(vae, 200_000, generator)
        torch.testing.assert_close(frames.mean(0), law.mean, rtol=0, atol=0.03)
        torch.testing.assert_close(torch.cov(frames.T), law.covariance_matrix, rtol=0, atol=0.1)
        drawn_bounds = torch.stack([bound(vae, frames[:200], generator) for _ in range(2000)]).double()
        error = drawn_bounds.std(0) / math.sqrt(2000)
        off = (drawn_bounds.mean(0) - law.log_prob(frames[:200])) / error
    assert float(off.abs().max()) < 5
    assert float(error.max()) < 0.1


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
    mixing = torch.tensor([[1.0, 0.0], [0.8, 0.3]])
    teacher.whitening.shift.copy_(torch.tensor([5.0, -3.0]))
    teacher.whitening.factor.copy_(mixing)
    rows = teacher.sample(4000, torch.Generator().manual_seed(0))
    data = VectorData("draws", rows, rows[:500], rows[:500])
    training = TrainConfig(steps=300, lr=1e-2, batch_size=256, crop_length=1, ema_decay=0.9, threads=1)
    generator = torch.Generator().manual_seed(0)
    before = begun(teacher, rows, 0)
    torch.testing.assert_close(before.whitening.shift, rows.mean(0))
    began, _ = divergence(before, teacher, 4000, generator)
    assert distil(teacher, data, training, tmp_path / "run") == 0
    student = models.load(tmp_path / "run")
    assert student.config.direction == "iaf"
    torch.testing.assert_close(student.whitening.shift, rows.mean(0))
    factor = student.whitening.factor
    torch.testing.assert_close(factor @ factor.T, torch.cov(rows.T), rtol=1e-3, atol=1e-4)
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
        (["--threads", "0"], "--threads: found 0, expected a positive integer"),
        (["--seed", "-1"], "--seed: found -1, expected 0 or more"),
    ],
)
def test_mistakes_are_one_line(place, extra, message, capsys):
    assert main(call(place, *extra)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("distill-frame-family: ")
    assert message in line
