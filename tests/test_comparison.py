"""distill-compare: what is true of each kind, steps that fit into the minutes, the pages, the whole in miniature."""

import json
import math

import pytest
import torch

from distill import comparison
from distill.comparison import SYSTEMS, Comparison, System, main
from distill.comparison_page import map_lines, table_lines
from distill.family import figures_of, kind_of, nats
from tests.conftest import AUDIO, small_student, small_teacher
from tests.test_flow_coupling import small_flow
from tests.test_wavevae import small_wavevae
from wavenet import checkpoint
from wavenet.audio import write_audio
from wavenet.data import load_clip, open_corpus


def each_kind():
    """One vocoder of each kind, small, in single precision."""
    found = {"teacher": small_teacher("gaussian"), "student": small_student()}
    found |= {"flow": small_flow(), "wavevae": small_wavevae()}
    return {name: model.float().requires_grad_(False) for name, model in found.items()}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three short recordings of noise, of different lengths."""
    folder = tmp_path_factory.mktemp("corpus")
    for number, frames in enumerate((60, 90, 120)):
        noise = torch.randn(16 * frames, generator=torch.Generator().manual_seed(number))
        write_audio(folder / f"{number}.wav", 0.1 * noise, AUDIO.sample_rate)
    found = open_corpus(str(folder), AUDIO)
    return [*found.train, *found.dev, *found.test]


def test_densities_are_those_of_the_models_themselves(clips):
    """Means over samples, not over clips, of each model's own density; bounds where it has no more."""
    models = each_kind()
    wavs = [load_clip(clip, AUDIO)[None] for clip in clips]
    count = sum(wav.shape[1] for wav in wavs)
    assert len({wav.shape[1] for wav in wavs}) > 1
    for name, of in {
        "teacher": lambda model, wav, mel: model(wav, mel).log_density(wav).sum(),
        "student": lambda model, wav, mel: model.double().log_prob(wav.double(), mel.double()),
    }.items():
        total = sum(float(of(models[name], wav, models[name].float().log_mel(wav))) for wav in wavs)
        assert nats(models[name].float(), clips) == pytest.approx(-total / count, rel=1e-4), name
    exact = sum(float(models["flow"].log_prob(wav, models["flow"].log_mel(wav))) for wav in wavs)
    over_cells = nats(models["flow"], clips)  # and not at the levels themselves
    assert over_cells == pytest.approx(-exact / count, abs=0.02)
    model, bound = models["wavevae"], 0.0
    for number, wav in enumerate(wavs):
        bound += float(model.elbo(wav, model.log_mel(wav), generator=torch.Generator().manual_seed(number)).bound.sum())
    assert nats(model, clips) == pytest.approx(-bound / count, rel=1e-4)


def test_each_kind_is_told_apart(clips):
    """A WaveVAE is a student too, and is not taken for one."""
    kinds = {name: kind_of(model) for name, model in each_kind().items()}
    assert {name: kind.density for name, kind in kinds.items()} == {
        "teacher": "exact",
        "student": "exact",
        "flow": "exact",
        "wavevae": "lower bound",
    }
    assert kinds["student"].density_passes == kinds["teacher"].sampling_passes == "T"


def test_figures_count_audio_and_not_clips(clips):
    found = figures_of(each_kind()["flow"], clips)
    assert found["macs"] == each_kind()["flow"].macs_per_sample
    assert found["density_x"] > 0
    assert found["sampling_x"] > 0
    assert json.dumps(found)


def row(**changes):
    kind = {"density": "lower bound", "density_passes": "1", "sampling_passes": "1"}
    sound = {"mel_distance": 0.5, "f0_within_3_percent": None, "stoi": None}
    plain = {"title": "X", "signal": "bound", "steps": 1234, "sound": sound, "nats": -4.567, "macs": 98765}
    return plain | {"kind": kind, "density_x": 2.0, "sampling_x": 3.0} | changes


def test_pages_mark_bounds_and_leave_out_what_nothing_has():
    figures = {"minutes": 2.0, "data": "bundled", "sample_rate": 8000, "clips": ["a", "b"]}
    figures |= {"rows": [row()], "others": [{"title": "griffin-lim", "sound": {"mel_distance": 0.1}}]}
    table = table_lines(figures)
    assert table[0].startswith("2 minutes of one thread for each training on `bundled`, 2 held-out clips")
    assert (
        table[2] == "| system | steps | MACs a sample | density [nats/sample] | mel distance [nats] | samples / CPU-s |"
    )
    assert table[4:] == ["| X | 1,234 | 98,765 | ≤ -4.57 | 0.500 | 24,000 |", "| griffin-lim |  |  |  | 0.100 |  |"]
    assert map_lines(figures)[2] == "| X | bound | lower bound | 1 | 2 | ≤ -4.57 | 1 | 3 | 0.500 |"


def test_steps_fill_the_minutes_at_the_speed_that_was_measured_once(tmp_path, monkeypatch):
    """minutes x rate / (batch x crop), by the last line of a short training; kept for the next call."""
    calls = []

    def training(arguments):
        """What a training leaves: its log and its settings."""
        calls.append(arguments)
        run = arguments[arguments.index("--out") + 1]
        checkpoint.save(
            tmp_path / run / "checkpoint.pt",
            kind="flow",
            config={},
            model_state={},
            extra={"record": {"train": {"batch_size": 4, "crop_length": 1000}}},
        )
        lines = [{"step": step, "train/samples_per_second": speed} for step, speed in ((10, 1.0), (20, 2000.0))]
        (tmp_path / run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return 0

    (tmp_path / "recipe.yaml").touch()
    system = System("X", "bound", training, "recipe.yaml", {"--teacher": "teacher"}, {"model.noise": "normal"})
    monkeypatch.setitem(SYSTEMS, "x", system)
    (tmp_path / "out" / "probes" / "x").mkdir(parents=True)
    found = Comparison(tmp_path / "out", tmp_path, "bundled", 3.0)
    assert found.steps("x") == found.steps("x") == 3 * 60 * 2000 / 4000
    (said,) = calls
    assert said[said.index("--teacher") + 1] == str(tmp_path / "out" / "teacher")
    assert said[said.index("--model.noise") + 1] == "normal"
    assert "--force" in said


def test_mistakes_cost_a_line_and_an_interruption_its_status(tmp_path, capsys, monkeypatch):
    for arguments, message in (
        (["--minutes", "0"], "--minutes: found 0.0, expected a positive number"),
        (["--recipes", str(tmp_path)], "demo_pitch.yaml: found no such recipe"),
        (["--page", str(tmp_path / "absent.md")], "absent.md: found no markers, expected <!-- comparison:begin -->"),
    ):
        assert main(["--out", str(tmp_path / "out"), *arguments]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setattr(comparison, "train_pitch", lambda arguments: 130)
    assert main(["--out", str(tmp_path / "out")]) == 130


@pytest.mark.slow
def test_the_whole_command_in_miniature(tmp_path):
    """Every system trained for a moment, both pages filled, and a second call that trains nothing."""
    page = tmp_path / "page.md"
    page.write_text("".join(f"<!-- {name}:begin -->\n<!-- {name}:end -->\n" for name in ("comparison", "map")))
    smoke = str(comparison.RECIPES / "smoke")
    arguments = ["--out", str(tmp_path / "out"), "--recipes", smoke, "--minutes", "0.01", "--clips", "1"]
    assert main([*arguments, "--page", str(page), "--map", str(page)]) == 0
    figures = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [found["run"] for found in figures["rows"]] == list(SYSTEMS)
    assert all(math.isfinite(found["nats"]) for found in figures["rows"])
    text = page.read_text()
    assert text.count("| RealNVP |") == 2
    assert "| griffin-lim |" in text
    before = (tmp_path / "out" / "steps.json").read_bytes()
    assert main(arguments) == 0
    assert (tmp_path / "out" / "steps.json").read_bytes() == before
