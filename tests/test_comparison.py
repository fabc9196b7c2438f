"""distill-compare: what is true of each kind, steps that fit into the minutes, the pages, the whole in miniature."""

import json
import math

import pytest
import torch

from distill import comparison, family
from distill.comparison import SYSTEMS, Comparison, System, main, over_seeds
from distill.comparison_page import map_lines, table_lines
from distill.family import figures_of, kind_of, nats
from tests.conftest import AUDIO, small_student, small_teacher
from tests.test_flow_coupling import small_flow
from tests.test_wavevae import small_wavevae
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
    bounds = {"teacher": "exact", "student": "exact", "flow": "bound", "wavevae": "bound"}
    assert {name: kind.nats for name, kind in kinds.items()} == bounds


def test_speeds_are_seconds_of_audio_in_a_cpu_second(clips, monkeypatch):
    """Of a clock that goes on by half a second between two looks, and of the audio that was asked for."""
    clock = iter(range(1000))
    monkeypatch.setattr(family.time, "process_time", lambda: next(clock) / 2)
    found = figures_of(each_kind()["flow"], clips)
    seconds = min(load_clip(clips[0], AUDIO).shape[0], 2 * AUDIO.sample_rate) / AUDIO.sample_rate
    assert found["density_x"] == found["sampling_x"] == pytest.approx(2 * seconds)
    assert found["macs"] == each_kind()["flow"].macs_per_sample
    assert json.dumps(found)


def row(**changes):
    kind = {"density": "lower bound", "density_passes": "2", "sampling_passes": "1", "nats": "bound"}
    sound = {"mel_distance": 0.5, "f0_within_3_percent": None, "stoi": None}
    plain = {
        "title": "X",
        "signal": "bound",
        "steps": 1234,
        "planned": 1234,
        "cpu_seconds": 61.4,
        "sound": sound,
        "nats": -4.567,
        "macs": 98765,
    }
    return plain | {"kind": kind, "density_x": 2.0, "sampling_x": 3.0, "stopped": []} | changes


def test_pages_mark_bounds_and_leave_out_what_nothing_has():
    figures = {"minutes": 2.0, "data": "bundled", "sample_rate": 8000, "clips": ["a", "b"], "seeds": [0]}
    figures |= {"rows": [row()], "others": [{"title": "griffin-lim", "sound": {"mel_distance": 0.1}}]}
    table = table_lines(figures)
    assert table[0].startswith("2 minutes of processor time for each training on `bundled`, 2 held-out clips")
    titles = ["system", "steps", "CPU s", "MACs a sample", "-log density [nats/sample]", "mel distance [nats]"]
    assert table[2] == f"| {' | '.join(titles)} | samples / CPU-s |"
    assert table[4:] == [
        "| X | 1,234 | 61 | 98,765 | ≤ -4.57 | 0.500 | 24,000 |",
        "| griffin-lim |  |  |  |  | 0.100 |  |",
    ]
    assert map_lines(figures)[2] == "| X | bound | lower bound | 2 | 2 | ≤ -4.57 | 1 | 3 | 0.500 |"


def test_seeds_are_averaged_and_their_spread_is_shown():
    """Means of what is known, the largest less the smallest in brackets; stopped is what any seed's monitor stopped."""
    figures = {"minutes": 2.0, "data": "bundled", "sample_rate": 8000, "clips": ["a"]}
    first = row(steps=1000, planned=1000) | {"sound": {"mel_distance": 0.5, "f0_within_3_percent": None}}
    second = row(steps=1101, planned=1101, nats=-4.0, stopped=["X"], cpu_seconds=70.0, sampling_x=4.0)
    second["sound"] = {"mel_distance": 0.4, "f0_within_3_percent": 0.25}
    others = [{"title": "griffin-lim", "sound": {"mel_distance": 0.1, "f0_within_3_percent": None}}]
    found = over_seeds([figures | {"rows": [values], "others": others} for values in (first, second)])
    assert found["rows"][0]["sound"] == {"mel_distance": pytest.approx(0.45), "f0_within_3_percent": 0.25}
    spread = found["rows"][0]["spread"]
    assert (spread["mel_distance"], spread["f0_within_3_percent"]) == (pytest.approx(0.1), 0.0)
    assert first["nats"] == -4.567  # what was given stays
    table = table_lines(found | {"seeds": [0, 1]})
    assert "1 held-out clips, means over seeds 0, 1, in brackets the largest less the smallest; density" in table[0]
    cells = "1,050 | 66 | 98,765 | ≤ -4.28 (0.57) | 0.450 (0.100) | 0.250 (0.000) | 28,000 |"
    assert table[4] == f"| X, stopped by its monitor | {cells}"
    assert table[5] == "| griffin-lim |  |  |  |  | 0.100 (0.000) | - |  |"
    line = "| X, stopped by its monitor | bound | lower bound | 2 | 2 | ≤ -4.28 (0.57) | 1 | 3.5 | 0.450 (0.100) |"
    assert map_lines(found | {"seeds": [0, 1]})[2] == line
    alone = over_seeds([figures | {"rows": [first], "others": others}])
    assert table_lines(alone | {"seeds": [3]})[4] == "| X | 1,000 | 61 | 98,765 | ≤ -4.57 | 0.500 | 24,000 |"


def test_every_seed_trains_on_its_own(tmp_path, monkeypatch):
    """In a folder of its own, with its seed; seeds that repeat are refused."""
    said = []
    (tmp_path / "recipe.yaml").touch()
    (tmp_path / "demo_pitch.yaml").touch()
    monkeypatch.setattr(comparison, "train_pitch", lambda arguments: 0)
    system = System("X", "bound", lambda arguments: said.append(arguments) or 0, "recipe.yaml")
    monkeypatch.setattr(comparison, "SYSTEMS", {"x": system})
    monkeypatch.setattr(Comparison, "measure", lambda self, clips: {"rows": [], "others": [], "seed": self.seed})
    call = ["--out", str(tmp_path / "out"), "--recipes", str(tmp_path), "--minutes", "1", "--seeds", "2", "5"]
    assert main(call) == 0
    places = [(path[path.index("--out") + 1], path[path.index("--train.seed") + 1]) for path in said]
    assert len(places) == 8  # three probes and the training, twice
    assert {seed for place, seed in places if "seed-2" in place} == {"2"}
    assert {seed for place, seed in places if "seed-5" in place} == {"5"}
    assert [found["seed"] for found in json.loads((tmp_path / "out" / "comparison.json").read_text())["each"]] == [2, 5]
    assert main([*call, "5"]) == 2


def test_pages_name_what_was_stopped():
    """At its last step too, and in the rows of what learned from it."""
    figures = {"minutes": 2.0, "data": "bundled", "sample_rate": 8000, "clips": ["a"], "seeds": [0], "others": []}
    figures["rows"] = [row(steps=1000, stopped=["X"]), row(stopped=["X"]), row(stopped=["X", "Y"]), row(stopped=["Y"])]
    own, after = "X, stopped by its monitor", ", after Y was stopped"
    expected = [own, own, own + after, "X" + after]
    assert [line.split(" | ")[0] for line in table_lines(figures)[4:]] == [f"| {title}" for title in expected]
    assert [line.split(" | ")[0] for line in map_lines(figures)[2:]] == [f"| {title}" for title in expected]
    assert " | 1,000 of 1,234 | " in table_lines(figures)[4]


def test_steps_fill_the_minutes_at_the_pace_of_a_step_without_its_setting_up(tmp_path, monkeypatch):
    """A clock that charges 7 s for setting up, 20 more the first time, and 0.5 a step; kept, for any minutes."""
    calls, clock = [], [0.0]

    def training(arguments):
        """Let the clock run as a training would."""
        calls.append(arguments)
        clock[0] += 7 + (20 if len(calls) == 1 else 0) + 0.5 * int(arguments[arguments.index("--train.steps") + 1])
        return 0

    monkeypatch.setattr(comparison.time, "process_time", lambda: clock[0])
    (tmp_path / "recipe.yaml").touch()
    system = System("X", "bound", training, "recipe.yaml", {"--teacher": "teacher"}, {"model.noise": "normal"})
    monkeypatch.setitem(SYSTEMS, "x", system)
    (tmp_path / "out").mkdir()
    assert Comparison(tmp_path / "out", tmp_path, "bundled", 3.0).steps("x") == 3 * 60 / 0.5
    assert len(calls) == 3
    assert Comparison(tmp_path / "out", tmp_path, "bundled", 6.0).steps("x") == 6 * 60 / 0.5
    assert len(calls) == 3
    said = calls[0]
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


@pytest.fixture
def ill_and_well(tmp_path, monkeypatch):
    """Two systems, one of which its monitor stops, in one comparison; the calls of their trainings."""
    called = []
    (tmp_path / "recipe.yaml").touch()
    (tmp_path / "demo_pitch.yaml").touch()
    monkeypatch.setattr(comparison, "train_pitch", lambda arguments: 0)
    systems = {}
    for name, status, needs in (("ill", 3, {}), ("well", 0, {"--teacher": "ill"})):
        train = lambda arguments, name=name, status=status: called.append(name) or status  # noqa: E731
        systems[name] = System(name, "bound", train, "recipe.yaml", needs)
    monkeypatch.setattr(comparison, "SYSTEMS", systems)
    (tmp_path / "out").mkdir()
    return Comparison(tmp_path / "out", tmp_path, "bundled", 1.0), called


def test_a_system_that_its_monitor_stops_does_not_end_the_comparison(ill_and_well):
    """It is not trained on by a second call either, and what learned from it says so."""
    compared, called = ill_and_well
    (compared.out / "seconds-a-step.json").write_text('{"ill": 1.0, "well": 1.0}')
    compared.train()
    assert called == ["ill", "well"]
    compared.train()
    assert called == ["ill", "well", "well"]
    assert compared.stopped("ill") == compared.stopped("well") == ["ill"]


def test_a_training_that_is_stopped_while_a_step_is_measured_gives_no_pace(ill_and_well, tmp_path):
    compared, called = ill_and_well
    with pytest.raises(comparison._Ended) as ended:
        compared.train()
    assert ended.value.status == 3
    assert called == ["ill"]
    assert not (compared.out / "seconds-a-step.json").exists()


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
    before = (tmp_path / "out" / "seed-0" / "seconds-a-step.json").read_bytes()
    assert main(arguments) == 0
    assert (tmp_path / "out" / "seed-0" / "seconds-a-step.json").read_bytes() == before
