"""Shipping a run: the file is the run bit for bit, its card says the truth or is not written, and the same run gives
the same bytes; the page of the cards is the files'.
"""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from distill import models
from distill.cards import SECTION, tables
from distill.ship import main as ship
from distill.train import main as distil
from tests.test_train_prior import place, student  # noqa: F401
from wavenet import checkpoint, weights
from wavenet.audio import read_audio, write_audio
from wavenet.run import read_metrics

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def made(place):  # noqa: F811
    """The miniature runs, a student among them, and figures of an evaluation of it."""
    assert distil(student(place, "student", 3)) == 0
    clips = {"one": {"pesq": 2.0}}
    systems = {"student": {"clips": clips, "mean": {"pesq": 2.0, "stoi": None, "mel_distance": 0.25}}}
    (place / "metrics.json").write_text(json.dumps({"clips": ["one"], "systems": systems}))
    (place / "projected.json").write_text(json.dumps({"clips": ["one"], "projection": 16, "systems": systems}))
    return place


def call(made, run, *extra, licence="CC0-1.0", corpus="corpus"):
    return [str(made / run), "--name", run, "--corpus", str(made / corpus), "--licence", licence, *extra]


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_is_the_run_and_the_same_run_gives_the_same_bytes(made, work):
    extra = ["--teacher", str(made / "teacher"), "--metrics", str(made / "metrics.json")]
    assert ship(call(made, "student", *extra)) == 0
    assert ship(call(made, "student", *extra, "--out", "again.safetensors")) == 0
    assert (work / "student.safetensors").read_bytes() == (work / "again.safetensors").read_bytes()
    run, shipped = models.load(made / "student"), models.load("student.safetensors")
    mel = torch.randn(1, 20, 12, generator=torch.Generator().manual_seed(1))
    first, second = (model.sample(mel, generator=torch.Generator().manual_seed(0)) for model in (run, shipped))
    assert torch.equal(first, second)


def test_another_pitch_network_replaces_the_runs_and_nothing_else(made, work):
    changed = checkpoint.load(made / "pitch")
    tensors = {name: value + 0.1 for name, value in checkpoint.weights(changed).items()}
    (work / "other").mkdir()
    checkpoint.save(work / "other" / "checkpoint.pt", kind="pitch", config=changed.config, model_state=tensors)
    assert ship(call(made, "student", "--teacher", str(made / "teacher"), "--pitch", "other")) == 0
    run, shipped = models.load(made / "student").state_dict(), models.load("student.safetensors").state_dict()
    for name, value in shipped.items():
        expected = tensors[name.removeprefix("pitch.")] if name.startswith("pitch.") else run[name]
        assert torch.equal(value, expected), name
    assert any(name.startswith("pitch.") for name in shipped)


def test_the_card_says_what_the_run_is(made, work):
    extra = ["--teacher", str(made / "teacher"), "--metrics", str(made / "metrics.json")]
    assert ship(call(made, "student", *extra, "--corpus_licence", "CC-BY-4.0")) == 0
    card, stored = weights.read_card(work / "student.safetensors"), checkpoint.load(made / "student")
    assert (card.name, card.kind, card.steps, card.licence) == ("student", "student", 3, "CC0-1.0")
    assert card.config == stored.config
    assert card.teacher == "teacher"
    assert card.corpus["name"] == "corpus"
    assert card.corpus["licence"] == "CC-BY-4.0"
    assert card.corpus["splits"] == {"train": 3, "dev": 1, "test": 1}
    assert 0.5 < card.corpus["hours"] * 3600 < 30
    assert card.metrics["evaluation"] == {"clips": 1, "pesq": 2.0, "mel_distance": 0.25}
    assert card.metrics["validation"]["step"] == 3
    assert card.commands == ["distill-train --config RECIPE.yaml --teacher teacher --data.root corpus"]
    assert card.recipe["objective"]["draws"] == 2
    assert str(made) not in json.dumps(card.recipe)


def test_a_teacher_shipped_under_a_name_is_called_by_it(made, work, monkeypatch):
    assert ship(call(made, "teacher", "--out", "my_teacher.safetensors")) == 0
    monkeypatch.setattr(weights, "FOLDER", work)
    assert ship(call(made, "student", "--teacher", "my-teacher")) == 0
    assert weights.read_card(work / "student.safetensors").teacher == "my_teacher"


def test_a_run_older_than_a_setting_is_shipped_with_it(made, work):
    shutil.copytree(made / "student", "student")
    older = dataclasses.asdict(checkpoint.load("student"))
    del older["config"]["source_filter"]["taps"], older["version"]
    checkpoint.save(work / "student" / "checkpoint.pt", **older)
    whole = ["--name", "voice", "--corpus", str(made / "corpus"), "--licence", "MIT"]
    assert ship(["student", *whole, "--teacher", str(made / "teacher")]) == 0
    shutil.copy("voice.safetensors", "voice.bin")
    (work / "metrics.json").write_text((made / "metrics.json").read_text())
    again = ["--metrics", "metrics.json", "--system", "student", "--overwrite"]
    assert ship(["voice.bin", *again]) == 0
    card = weights.read_card(work / "voice.safetensors")
    assert card.config["source_filter"]["taps"] == models.load("voice.safetensors").config.source_filter.taps == 256
    assert card.metrics["evaluation"]["pesq"] == 2.0


def test_the_log_and_steps_of_what_a_run_began_with_come_first(made, work, capsys):
    """Each validation of the run is a line of the card and of the page's table; --init is checked against the run."""
    teacher = ["--teacher", str(made / "teacher")]
    assert ship(call(made, "student", *teacher)) == 0
    first = weights.read_card("student.safetensors")
    validated = [line for line in read_metrics(made / "student") if "validation/kl/kl" in line]
    assert [row["step"] for row in first.metrics["log"]] == [line["step"] for line in validated] != []
    assert first.metrics["log"][-1]["validation/kl/kl"] == round(validated[-1]["validation/kl/kl"], 4)
    assert distil(student(made, "more", 2, "--init", "student.safetensors", pitch=None)) == 0
    whole = ["--name", "more", "--corpus", str(made / "corpus"), "--licence", "MIT", *teacher]
    assert ship([str(made / "more"), *whole, "--init", "student.safetensors"]) == 0
    card = weights.read_card("more.safetensors")
    assert card.steps == 3 + 2
    assert card.metrics["log"][: len(first.metrics["log"])] == first.metrics["log"]
    assert card.metrics["log"][-1]["step"] == 5
    page = tables({"more": work / "more.safetensors"})
    assert "| step | KL to the teacher [nats/sample] |" in page
    assert "| 5 | " in page
    assert "which began with other weights" not in capsys.readouterr().err
    assert ship([str(made / "more"), *whole, "--overwrite"]) == 0
    alone = (
        f"more.safetensors: its card counts the steps of {made / 'more'} alone, which began with other weights; --init"
    )
    assert capsys.readouterr().err.startswith(alone)
    assert weights.read_card("more.safetensors").commands[0].startswith("distill-train --config RECIPE.yaml --init WEI")
    assert distil(student(made, "most", 1, "--init", "more.safetensors", pitch=None)) == 0
    assert ship([str(made / "most"), *whole, "--name", "most", "--init", "more.safetensors"]) == 0
    card, said = weights.read_card("most.safetensors"), capsys.readouterr().err
    assert card.steps == 2 + 1
    assert card.commands == ["distill-train --config RECIPE.yaml --init more --teacher teacher --data.root corpus"]
    assert "steps that more.safetensors knows of, which itself began with other weights" in said
    assert ship([str(made / "student"), *whole, "--init", "student.safetensors", "--overwrite"]) == 2
    assert f"--init: found student.safetensors of digest {first.digest}, expected None" in capsys.readouterr().err
    assert ship([str(made / "more"), *whole, "--init", str(made / "more"), "--overwrite"]) == 2
    assert "more', expected weights in .safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("run", "extra", "message"),
    [
        ("student", [], "--teacher: found none, expected the teacher of this student"),
        ("student", ["--teacher", "sourced"], "that of"),
        ("student", ["--teacher", "teacher", "--metrics", "absent.json"], "absent.json: found no such file"),
        ("student", ["--teacher", "teacher", "--metrics", "corpus/train.txt"], "expected metrics.json"),
        (
            "student",
            ["--teacher", "teacher", "--metrics", "metrics.json", "metrics.json"],
            "metrics.json', expected one evaluation of the model's own samples",
        ),
        ("teacher", ["--metrics", "metrics.json"], "--system: found no 'teacher' in"),
        ("teacher", ["--teacher", "teacher"], "expected none for a teacher"),
        ("teacher", ["--pitch", "pitch"], "has no pitch network to replace"),
        ("student", ["--teacher", "teacher", "--pitch", "teacher"], "expected a run of wavenet-train-pitch"),
        ("teacher", ["--out", "teacher.pt"], "--out: found 'teacher.pt', expected FILE.safetensors"),
        ("teacher", ["--name", "a/b"], "--name: found 'a/b'"),
        ("absent", [], "absent: found no such file"),
    ],
)
def test_what_is_not_so_is_refused_in_one_line(made, work, capsys, run, extra, message):
    extra = [str(made / word) if (made / word).exists() and word != run else word for word in extra]
    if run == "student":
        extra = [str(made / word) if word == "teacher" else word for word in extra]
    assert ship(call(made, run, *extra)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(work.iterdir())


def test_figures_measured_again_change_nothing_else(made, work, capsys):
    extra = ["--teacher", str(made / "teacher"), "--metrics", str(made / "metrics.json")]
    assert ship(call(made, "student", *extra)) == 0
    before, tensors = weights.read(work / "student.safetensors")
    mean = {"pesq": 3.0, "stoi": 0.9, "mel_distance": None}
    for name, clips in (("new.json", ["one", "two"]), ("foreign.json", [])):
        systems = {"student" if clips else "other": {"clips": {}, "mean": mean}}
        (work / name).write_text(json.dumps({"clips": clips, "systems": systems}))
    again = ["student.safetensors", "--metrics", "new.json"]
    assert ship(again) == 2
    assert "found 'student.safetensors', expected no such file yet" in capsys.readouterr().err
    assert ship([*again, "--overwrite"]) == 0
    assert "figures of 2 clips" in capsys.readouterr().out
    after, same = weights.read(work / "student.safetensors")
    assert after.metrics == before.metrics | {"evaluation": {"clips": 2, "stoi": 0.9, "pesq": 3.0}}
    assert dataclasses.replace(after, metrics=before.metrics) == before
    assert same.keys() == tensors.keys()
    assert all(torch.equal(value, same[name]) for name, value in tensors.items())
    for wrong, message in (
        (["student.safetensors"], "--metrics: found None, expected metrics.json of an evaluation of student"),
        ([*again, "--licence", "MIT"], "--licence: found 'MIT', expected none: the card of student"),
        (["student.safetensors", "--metrics", "foreign.json", "--overwrite"], "found no 'student' in foreign.json"),
        (["nothing"], "nothing: found no such file"),
    ):
        assert ship(wrong) == 2
        assert message in capsys.readouterr().err
    assert weights.read_card(work / "student.safetensors") == after


def test_projected_figures_have_a_column_and_commands_can_be_told_again(made, work, capsys):
    files = [str(made / "metrics.json"), str(made / "projected.json")]
    assert ship(call(made, "student", "--teacher", str(made / "teacher"), "--metrics", *files)) == 0
    before, _ = weights.read(work / "student.safetensors")
    assert before.metrics["projected"] == {"steps": 16, "clips": 1, "pesq": 2.0, "mel_distance": 0.25}
    page = tables({"student": work / "student.safetensors"})
    assert "| held out, means over 1 test clips | own samples | projected, 16 steps |" in page
    assert "| PESQ [MOS] | 2.00 | 2.00 |" in page
    assert re.search(r"\| KL to the teacher \[nats/sample\], in training \| [-.0-9]+ \| - \|", page)
    systems = {"student": {"clips": {}, "mean": {"stoi": 0.9}}}
    (work / "new.json").write_text(json.dumps({"clips": ["one"], "projection": 8, "systems": systems}))
    again = ["student.safetensors", "--overwrite", "--metrics", "new.json", "--commands", "first", "then"]
    assert ship(again) == 0
    assert capsys.readouterr().out.endswith("figures of 1 clips (projected)\n")
    after, _ = weights.read(work / "student.safetensors")
    assert after.commands == ["first", "then"]
    assert after.metrics == before.metrics | {"projected": {"steps": 8, "clips": 1, "stoi": 0.9}}
    assert dataclasses.replace(after, metrics=before.metrics, commands=before.commands) == before


def test_another_corpus_is_refused(made, work, capsys):
    wav, info = read_audio(next((made / "corpus" / "wavs").iterdir()))
    (work / "corpus").mkdir()
    for name in ("a", "b", "c"):
        write_audio(work / "corpus" / f"{name}.wav", wav, info.sample_rate)
    assert ship([str(made / "teacher"), "--name", "t", "--corpus", "corpus", "--licence", "MIT"]) == 2
    assert "--corpus: found corpus of digest" in capsys.readouterr().err


def test_a_file_is_not_written_over_and_options_are_needed(made, work, capsys):
    assert ship(call(made, "teacher")) == 0
    before = (work / "teacher.safetensors").read_bytes()
    assert ship(call(made, "teacher")) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert ship(call(made, "teacher", "--overwrite")) == 0
    assert (work / "teacher.safetensors").read_bytes() == before
    assert ship([str(made / "teacher"), "--name", "x"]) == 2
    assert "--corpus: found None, expected a value" in capsys.readouterr().err
    assert ship([]) == 2
    assert "RUN: found None" in capsys.readouterr().err
    assert ship(["teacher.safetensors", "--name", "x", "--corpus", str(made / "corpus"), "--licence", "MIT"]) == 2
    assert "--name: found 'x', expected none: the card of teacher.safetensors says it" in capsys.readouterr().err


def test_the_page_of_the_cards_is_written_by_the_command(work, capsys):
    (work / "page.md").write_text(f"before\n<!-- {SECTION}:begin -->\nold\n<!-- {SECTION}:end -->\nafter\n")
    assert ship(["--page", "page.md"]) == 0
    text = (work / "page.md").read_text()
    assert tables(weights.shipped()) in text
    assert "old" not in text
    assert ship(["--page", "absent.md"]) == 2
    assert "found no markers" in capsys.readouterr().err


def test_the_page_is_that_of_the_files():
    """docs/weights.md against the files in the package: `python scripts/ship.py --page docs/weights.md` writes it."""
    page = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"<!-- {SECTION}:begin -->\n(.*)\n<!-- {SECTION}:end -->", page, flags=re.DOTALL)
    assert section == tables(weights.shipped())
    for path in weights.shipped().values():
        card = weights.read_card(path)
        assert f"`{card.digest}`" in section
        assert f"| {card.name} | {card.kind} | {card.config['audio']['sample_rate']} |" in section
