"""The benchmark: its schema, its arithmetic, the refusal of contestants that disagree, and what the command writes."""

import builtins
import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch

from distill.benchmark import main
from distill.speed import measurement
from distill.speed.contestants import Contestant
from distill.speed.measurement import benchmark
from distill.speed.tables import crossover, growth, markdown_table, ratios
from distill.speed.timing import Timing
from tests.conftest import AUDIO, random_mel, randomise, small_stack, small_student, small_teacher
from wavenet import checkpoint, teacher
from wavenet.arguments import to_dict
from wavenet.errors import UserError
from wavenet.teacher import Teacher

ROW = {
    "net",
    "method",
    "device",
    "threads",
    "batch",
    "seconds_of_audio",
    "samples_per_second",
    "samples_per_cpu_second",
    "x_real_time",
    "peak_memory_mb",
    "min",
    "max",
    "repeats",
    "share_of_fma",
    "share_of_floor",
    "share_of_bound",
}
STUDENT = str(Path(__file__).resolve().parent.parent / "configs" / "smoke" / "student_mol.yaml")
SHORT = {"seconds": 0.02, "repeats": 3, "naive_seconds": 0.004}


CEILINGS = ("fma_gflops", "gemm_gflops", "gemv_gflops", "copy_gb_per_s")


@pytest.fixture(scope="module", autouse=True)
def _short_ceilings():
    """The ceilings have their own test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.speed.measurement.ceilings", lambda device: dict.fromkeys(CEILINGS, 1.0))
        patch.setattr("distill.speed.ceilings._SECONDS", 0.01)
        yield


def nets():
    return {"big": small_teacher().float(), "fast": small_student().float()}


@pytest.fixture(scope="module")
def result():
    return benchmark(nets(), random_mel(1).float(), batch=2, announce=lambda line: None, **SHORT)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    for (name, model), kind in zip(nets().items(), ("teacher", "student"), strict=True):
        (place / name).mkdir()
        path = place / name / checkpoint.FILE_NAME
        checkpoint.save(path, kind=kind, config=to_dict(model.config), model_state=model.state_dict())
    return place


def command(runs, out, *extra):
    quick = ["--seconds", "0.02", "--repeats", "1", "--naive-seconds", "0.004"]
    return [str(runs / "big"), str(runs / "fast"), "--out", str(out), *quick, *extra]


def test_schema(result):
    assert result.keys() == {"machine", "nets", "ceilings", "rows", "ratios"}
    assert all(row.keys() == ROW for row in result["rows"])
    assert [(row["net"], row["method"]) for row in result["rows"]] == [
        ("big", "naive"),
        ("big", "cached"),
        ("big", "fused"),
        ("fast", "parallel"),
        ("fast", "tiled"),
    ]
    assert result["ceilings"].keys() == set(CEILINGS)
    assert [(net["name"], net["kind"]) for net in result["nets"]] == [("big", "teacher"), ("fast", "student")]
    json.dumps(result, allow_nan=False)


def test_nets_are_counted(result):
    for net, model in zip(result["nets"], nets().values(), strict=True):
        assert net["parameters"] == sum(p.numel() for p in model.parameters())
        assert net["macs_per_sample"] == model.macs_per_sample > 0


def test_rows_are_consistent(result):
    for row in result["rows"]:
        assert row["min"] <= row["samples_per_second"] <= row["max"]
        assert row["x_real_time"] == pytest.approx(row["samples_per_second"] / AUDIO.sample_rate)
        assert (row["batch"], row["repeats"], row["threads"], row["device"]) == (2, 3, 1, "cpu")
    seconds = {row["method"]: row["seconds_of_audio"] for row in result["rows"]}
    # Whole frames of 2 ms: 10 of them, and 2 for the naive sampler.
    assert seconds == {"naive": 0.004, "cached": 0.02, "fused": 0.02, "parallel": 0.02, "tiled": 0.02}


def test_ratios_follow_from_rows(result):
    speed = {f"{row['net']} {row['method']}": row["samples_per_second"] for row in result["rows"]}
    pairs = {(ratio["of"], ratio["over"]) for ratio in result["ratios"]}
    passes = {
        (f"fast {engine}", f"big {method}")
        for engine in ("parallel", "tiled")
        for method in ("naive", "cached", "fused")
    }
    same = {("big cached", "big naive"), ("big fused", "big naive"), ("big fused", "big cached")}
    assert pairs == passes | same | {("fast tiled", "fast parallel")}
    for ratio in result["ratios"]:
        assert ratio.keys() == {"of", "over", "net", "device", "value"}
        assert ratio["value"] == pytest.approx(speed[ratio["of"]] / speed[ratio["over"]])
        assert ratio["of"].startswith(ratio["net"])


def test_table_has_a_line_for_every_row_and_ratio(result):
    lines = markdown_table(result).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert len({len(row) for row in cells}) == 1
    assert [row[:2] for row in cells[2:]] == [[row["net"], row["method"]] for row in result["rows"]]
    assert sum("times as fast as" in line and "It multiplies" not in line for line in lines) == len(result["ratios"])
    assert sum("It multiplies" in line for line in lines) == 1  # a student, a teacher
    unlike = [line for line in lines if " s of audio against " in line]
    assert len(unlike) == sum(ratio["over"] == "big naive" for ratio in result["ratios"])
    assert all(line.endswith("big naive (0.02 s of audio against 0.004 s)") for line in unlike)


def test_shares_follow_from_rows(result):
    nets = {net["name"]: net for net in result["nets"]}
    for row in result["rows"]:
        rate = 2 * nets[row["net"]]["macs_per_sample"] * row["samples_per_second"] / 1e9
        assert row["share_of_fma"] == pytest.approx(rate / result["ceilings"]["fma_gflops"])
        assert row["share_of_floor"] is row["share_of_bound"] is None  # two signals at once, or one pass


@pytest.mark.parametrize("kind", ["mol", "gaussian"])
def test_a_teacher_with_linear_prediction_is_measured(kind):
    said = []
    model = small_teacher(kind, linear_prediction=4).float()
    found = benchmark({"predicting": model}, random_mel(1).float(), announce=said.append, **SHORT)
    assert [row["method"] for row in found["rows"]] == ["naive", "cached", "fused"]
    assert sum("equals naive sampling within" in line for line in said) == 2
    assert found["nets"][0]["macs_per_sample"] == model.stack.macs_per_sample + 7 * 4
    assert found["nets"][0]["floor"] > 0


def test_lengths_and_batches_are_further_rows():
    sweep = {"lengths": (0.02, 0.05), "batches": (1, 3), "methods": ("fused", "parallel")}
    found = benchmark(nets(), random_mel(1).float(), announce=len, **SHORT | sweep)
    places = [(row["net"], row["method"], row["batch"], round(row["seconds_of_audio"], 3)) for row in found["rows"]]
    assert places == [
        (net, method, batch, seconds)
        for net, method in (("big", "fused"), ("fast", "parallel"))
        for batch, seconds in ((1, 0.02), (1, 0.05), (3, 0.02))
    ]
    first = found["rows"][0]
    assert first["share_of_bound"] > first["share_of_floor"] > 0
    assert found["nets"][0]["bound"] < found["nets"][0]["floor"]
    assert len(found["ratios"]) == 1  # the sweeps' rows are not compared
    table = growth(found["rows"])
    assert table[3] == "| net | method | 1 x 0.02 s | 1 x 0.05 s | 3 x 0.02 s |"
    assert len(table) == 7


def test_a_share_is_the_median_of_rounds_each_over_the_floor_around_it():
    """100 samples in 1, 2 and 1 CPU seconds beside floors of 200, 100 (a slow moment) and 50 to 150 samples/s."""
    floors = [(200.0, 200.0), (100.0, 100.0), (50.0, 150.0)]
    beside = [({"floor": before}, {"floor": after}) for before, after in floors]
    timing = Timing([9.0] * 3, [1.0, 2.0, 1.0], None, beside)
    assert measurement._share_of("floor", 100, timing) == pytest.approx(0.5)  # of 0.5, 0.5 and 100 / 75
    # Of one round, the floor between 50 and 150: what their times' mean allows, 75.
    assert measurement._share_of("floor", 100, Timing([9.0], [1.0], None, beside[2:])) == pytest.approx(4 / 3)
    assert measurement._share_of("floor", 100, Timing([9.0], [1.0], None)) is None
    net = {"floor": 1.0, "bound": 1.0}
    measurement._set_limits(net, [])
    assert net == {"floor": 1.0, "bound": 1.0}
    measurement._set_limits(net, [[({"floor": f, "bound": f / 2},) * 2 for f in (4.0, 2.0, 8.0)]])
    assert net == {"floor": 4.0, "bound": 2.0}
    measurement._set_limits(net, [[({"floor": 50.0, "bound": 1.0}, {"floor": 150.0, "bound": 3.0})]])
    assert net == pytest.approx({"floor": 75.0, "bound": 1.5})


def test_beside_a_gpu_the_fastest_sampler_of_a_cpu_is_timed_and_says_where_it_ran(result):
    assert {"fused", "graph", "persistent"} < set(measurement.GPU_METHODS)
    timing = Timing([1.0], [1.0], None)
    limits = {"gemm_gflops": 1.0, "gemv_gflops": 1.0, "copy_gb_per_s": 1.0}
    net = {"macs_per_sample": 1, "floor": None}
    rows = [
        measurement._row(Contestant("big", method, 1, 1.0, 8000, len), timing, "cuda", 1, net, limits)
        for method in ("graph", "fused")
    ]
    assert [row["device"] for row in rows] == ["cuda", "cpu"]
    table = markdown_table(result | {"rows": rows, "ratios": []})
    assert "on cuda (fused on cpu), 1 thread(s)" in table


def test_a_method_too_slow_for_the_budget_makes_less_and_is_not_swept():
    settings = SHORT | {"seconds": 0.2, "lengths": (0.3,), "methods": ("cached",), "budget": 1e-6}
    rows = benchmark(nets(), random_mel(1).float(), announce=len, **settings)["rows"]
    assert [row["seconds_of_audio"] for row in rows] == [0.002]  # one frame


def test_without_naive_nothing_is_held_against_it(monkeypatch):
    naive = []
    monkeypatch.setitem(teacher.SAMPLERS, "naive", lambda *arguments: naive.append(1))
    said = []
    settings = SHORT | {"naive_seconds": 0.0, "methods": ("naive", "fused")}
    found = benchmark(nets(), random_mel(1).float(), announce=said.append, **settings)
    assert [row["method"] for row in found["rows"]] == ["fused"]
    assert not naive
    assert "teacher forcing gives 100.00%" in said[-1]


def row_of(net, method, speed):
    return {"net": net, "method": method, "device": "cpu", "samples_per_second": speed, "seconds_of_audio": 1.0}


def test_the_verdict_names_who_loses_and_from_where_on():
    """Arithmetic of 30 M a second against 20 M: a student of 3 M wins against teachers of more than 2 M a sample."""
    nets = [{"name": "t", "macs_per_sample": 1e6}, {"name": "s", "macs_per_sample": 3e6}]
    rows = [row_of("t", "cached", 2.0), row_of("t", "fused", 20.0), row_of("s", "parallel", 10.0)]
    (line,) = crossover({"nets": nets, "rows": rows})
    assert line.startswith("- s parallel is slower than t fused (0.50 of its speed): the parallel student loses here.")
    assert "against teachers of more than 2 M a sample" in line
    nets[0]["macs_per_sample"] = 4e6
    rows[1]["samples_per_second"] = 5.0
    (line,) = crossover({"nets": nets, "rows": rows})
    assert line.startswith("- s parallel is 2 times as fast as t fused.")
    rows[1]["seconds_of_audio"] = 0.25
    (line,) = crossover({"nets": nets, "rows": rows})
    assert line.startswith("- s parallel is 2 times as fast as t fused (1 s of audio against 0.25 s).")
    assert {(r["of"], r["over"]) for r in ratios(rows)} == {
        ("t fused", "t cached"),
        ("s parallel", "t cached"),
        ("s parallel", "t fused"),
    }


def test_an_engine_that_disagrees_is_refused(monkeypatch):
    engines = "distill.speed.contestants.build"
    monkeypatch.setattr(engines, lambda name, student: lambda signal, cond: student.through(signal, cond) + 1.0)
    with pytest.raises(UserError, match=r"fast: found tiled and torch \d.* apart, expected at most 0\.000"):
        benchmark(nets(), random_mel(1).float(), methods=("tiled",), announce=len, **SHORT)


def test_contestants_that_disagree_are_refused(monkeypatch):
    cached = teacher.SAMPLERS["cached"]
    monkeypatch.setitem(teacher.SAMPLERS, "cached", lambda *arguments: cached(*arguments) + 0.01)
    with pytest.raises(UserError, match=r"big: found cached and naive sampling 0\.01 apart, expected at most 0\.0001"):
        benchmark(nets(), random_mel(1).float(), announce=lambda line: None, **SHORT)
    monkeypatch.setitem(teacher.SAMPLERS, "cached", lambda *arguments: cached(*arguments) * float("nan"))
    with pytest.raises(UserError, match="nan apart"):
        benchmark(nets(), random_mel(1).float(), methods=("cached",), announce=lambda line: None, **SHORT)


def test_a_ring_that_is_wrong_at_a_long_dilation_alone_is_refused(monkeypatch):
    """The short comparison with naive ends before the dilation of 32 reads anything: teacher forcing must tell."""
    config = dataclasses.replace(small_teacher().config, stack=small_stack(cycles=1, layers=6))
    torch.manual_seed(0)
    model = randomise(Teacher(config), scale=0.3).eval().requires_grad_(False)
    broken = copy.deepcopy(model)
    broken.stack.blocks[-1].dilated.weight[:, :, 0] += 1.0
    cached = teacher.SAMPLERS["cached"]
    monkeypatch.setitem(teacher.SAMPLERS, "cached", lambda model, *arguments: cached(broken, *arguments))
    settings = {"seconds": 0.2, "repeats": 1, "naive_seconds": 0.002}
    with pytest.raises(UserError, match=r"of cached samples that teacher forcing does not give back"):
        benchmark({"big": model}, random_mel(1).float(), announce=len, **settings)


def test_the_machine_is_announced_before_anything_is_timed(monkeypatch):
    said = []
    monkeypatch.setattr("distill.speed.measurement.measure", lambda *_: (_ for _ in ()).throw(UserError("now")))
    with pytest.raises(UserError, match="now"):
        benchmark(nets(), random_mel(1).float(), announce=said.append, **SHORT)
    assert said[0].startswith("machine: cpu ")
    assert said[1].startswith("ceilings with 1 thread(s)")
    assert "cached equals naive" in said[4]


def test_threads_are_restored(monkeypatch):
    mel, seen = random_mel(1).float(), []
    torch.set_num_threads(2)
    monkeypatch.setattr(
        "distill.speed.measurement.describe", lambda device: {"threads": seen.append(torch.get_num_threads())}
    )
    benchmark(nets(), mel, threads=1, methods=("parallel",), announce=len, **SHORT)
    assert torch.get_num_threads() == 2
    with pytest.raises(UserError, match="a method that one of the models has"):
        benchmark({"fast": nets()["fast"]}, mel, threads=1, methods=("naive",), announce=len, **SHORT)
    assert torch.get_num_threads() == 2
    assert seen == [1, 1]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"methods": ("fast",)}, "methods: found 'fast'"),
        ({"methods": ("cached", "cached")}, "each once"),
        ({"seconds": float("nan")}, "seconds: found nan"),
        ({"naive_seconds": -1.0}, "naive_seconds: found -1"),
        ({"budget": 0.0}, "budget: found 0"),
        ({"lengths": (0.0,)}, "lengths: found"),
        ({"batches": (0,)}, "batches: found"),
        ({"repeats": 0}, "repeats: found 0"),
        ({"threads": 0}, "threads: found 0"),
        ({"batch": -1}, "batch: found -1"),
    ],
)
def test_settings_without_sense(setting, message):
    with pytest.raises(UserError, match=message):
        benchmark(nets(), random_mel(1).float(), announce=len, **SHORT | setting)


def test_mel_of_another_model_is_refused():
    with pytest.raises(UserError, match=r"mel: found \(1, 7, 3\), expected shape \(1, 6, F\)"):
        benchmark(nets(), torch.zeros(1, 7, 3), announce=len, **SHORT)


def test_the_command_writes_what_it_prints(runs, tmp_path, capsys):
    out = tmp_path / "new" / "speed.json"
    assert main(command(runs, out)) == 0
    printed = capsys.readouterr().out
    stored = json.loads(out.read_text())
    assert json.loads(printed.splitlines()[-1]) == stored
    assert markdown_table(stored) in printed
    assert {row["net"] for row in stored["rows"]} == {"big", "fast"}
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in out.parent.iterdir()} == {"speed.json", "speed.png"}


def test_the_tables_go_into_a_page(runs, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- speed:begin -->\nold\n<!-- speed:end -->\nafter\n")
    assert main([*command(runs, tmp_path / "speed.json"), "--page", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- speed:begin -->\n| net |")
    assert text.endswith("<!-- speed:end -->\nafter\n")
    assert markdown_table(json.loads((tmp_path / "speed.json").read_text())) in text
    assert "Machine: cpu " in text


def test_training_is_told_too(runs, tmp_path, capsys):
    """The miniatures: a teacher's speed and a distillation's, in the JSON, the tables and the page."""
    page, out = tmp_path / "page.md", tmp_path / "speed.json"
    page.write_text("<!-- speed:begin -->\n<!-- speed:end -->\n")
    extra = ["--methods", "parallel", "--page", str(page), "--quick", "--training"]
    assert main([*command(runs, out), *extra]) == 0
    printed, stored = capsys.readouterr().out, json.loads(out.read_text())
    assert json.loads(printed.splitlines()[-1]) == stored
    assert stored.keys() == {"machine", "nets", "ceilings", "rows", "ratios", "training"}
    assert all(row.keys() == ROW for row in stored["rows"])
    assert [profile["kind"] for profile in stored["training"]] == ["teacher", "student"]
    for profile in stored["training"]:
        assert profile["samples_per_second"] > 0
        assert profile["steps"] == 3
        assert sum(profile["shares"].values()) == pytest.approx(1.0, abs=1e-9)
    for text in (printed, page.read_text()):
        assert "| | teacher_mol | student_mol |" in text
        assert f"| samples/s | {stored['training'][0]['samples_per_second']:,.0f} |" in text
        assert "| teacher |  | " in text  # the frozen teacher's pass is a part of distillation alone


def test_a_page_outlives_a_failure(runs, tmp_path, capsys, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("<!-- speed:begin -->\nprecious\n<!-- speed:end -->\n")
    monkeypatch.setattr("distill.benchmark.benchmark", lambda *_, **__: (_ for _ in ()).throw(UserError("no")))
    assert main([*command(runs, tmp_path / "speed.json"), "--page", str(page)]) == 2
    assert "precious" in page.read_text()


def test_a_page_without_markers_is_known_before_the_wait(runs, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("mine")
    assert main([*command(runs, tmp_path / "speed.json"), "--page", str(page)]) == 2
    assert "found no markers, expected <!-- speed:begin -->" in capsys.readouterr().err
    assert page.read_text() == "mine"
    assert not (tmp_path / "speed.json").exists()


def test_without_matplotlib_one_line_says_so(runs, tmp_path, capsys, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(command(runs, tmp_path / "speed.json", "--methods", "parallel")) == 0
    printed = capsys.readouterr()
    assert "pip install matplotlib" in printed.err
    assert len(printed.err.splitlines()) == 1
    assert json.loads(printed.out.splitlines()[-1])["rows"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--out", "speed.txt"], "--out: found 'speed.txt'"),
        (["--repeats", "many"], "repeats"),
        (["--methods", "quick"], "methods: found 'quick'"),
        (["--device", "abacus"], "abacus"),
        (["--nets", "huge"], "--nets: found 'huge'"),
        (["--lengths", "1,long"], "--lengths: found '1,long'"),
        (["--training", "run"], "--training: found 'run', expected recipes (.yaml)"),
        (["--training", "absent.yaml"], "absent.yaml"),
        (["--training", STUDENT], "student_mol.yaml:TEACHER, which it distils"),
        (["--training", f"{STUDENT}:{STUDENT}"], "expected a teacher's recipe after the colon"),
        (["--mel", "absent.npy"], "absent.npy: found no such file"),
    ],
)
def test_mistakes_are_one_line_and_status_two(runs, tmp_path, capsys, monkeypatch, extra, message):
    monkeypatch.chdir(tmp_path)
    assert main(command(runs, tmp_path / "speed.json", *extra)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept_unless_told_to_replace_it(runs, tmp_path, capsys):
    out = tmp_path / "speed.json"
    out.write_text("dear")
    assert main(command(runs, out)) == 2
    assert "found an existing file, expected none (--overwrite replaces it)" in capsys.readouterr().err
    assert out.read_text() == "dear"
    assert main([*command(runs, out), "--overwrite"]) == 0
    assert json.loads(out.read_text())["rows"]
