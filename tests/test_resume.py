"""Resume is bit-exact after any end; what may not be resumed is refused; Ctrl-C and SIGTERM save."""

import json
import os
import signal

import pytest
import torch
from torch.utils.data import get_worker_info

from tests.conftest import small_teacher
from tests.toy_run import CONFIG, Pairs, assert_same, logged, run, state, task
from wavenet import checkpoint
from wavenet.arguments import to_dict
from wavenet.errors import UserError
from wavenet.run import Run
from wavenet.trainer import Task, Validation, _defaults, train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "constant"},
        {"schedule": "halving", "halve_every": 4},
        {"schedule": "constant", "ema_decay": 0.0},
        {"schedule": "constant", "optimizer": "adamw", "weight_decay": 0.1},
    ],
)
def test_resume_is_bit_exact(tmp_path, settings):
    assert run(tmp_path / "whole", **settings) == 0
    assert run(tmp_path / "parts", steps=11, **settings) == 0
    assert run(tmp_path / "parts", **settings) == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")


def interrupt_at(step_to_stop: int, *numbers: int):
    def on_step(step):
        if step == step_to_stop:
            for number in numbers:
                signal.raise_signal(number)

    return Pairs(on_step=on_step)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_saves_says_how_to_go_on_and_resumes_bit_exact(tmp_path, capsys, number):
    before = signal.getsignal(number)
    assert run(tmp_path / "parts", schedule="cosine", data=interrupt_at(7, number)) == 130
    assert signal.getsignal(number) is before
    assert "interrupted at step 8 of 20 and saved; the same command goes on from there" in capsys.readouterr().err
    assert checkpoint.load(tmp_path / "parts").step == 8
    assert run(tmp_path / "parts", schedule="cosine") == 0
    assert run(tmp_path / "whole", schedule="cosine") == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_interrupt_during_validation_is_saved_too(tmp_path):
    toy = task({"train": to_dict(CONFIG)})

    def validate(average):
        signal.raise_signal(signal.SIGINT)
        return Validation({}, {}, 8000)

    toy.validate = validate
    assert train(toy, CONFIG, Pairs(), 0, tmp_path / "run") == 130
    assert checkpoint.load(tmp_path / "run").step == 8


def test_second_interrupt_stops_at_once_and_keeps_the_last_checkpoint(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", schedule="cosine", data=interrupt_at(7, signal.SIGINT, signal.SIGINT))
    assert checkpoint.load(tmp_path / "parts").step == 5
    assert run(tmp_path / "parts", schedule="cosine") == 0
    assert run(tmp_path / "whole", schedule="cosine") == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")
    assert logged(tmp_path / "whole")[-1] == logged(tmp_path / "parts")[-1]


def test_resume_after_a_kill_drops_what_was_logged_after_the_checkpoint(tmp_path):
    def kill(step):
        if step == 13:
            raise MemoryError("killed")

    with pytest.raises(MemoryError):
        run(tmp_path / "parts", data=Pairs(on_step=kill))
    assert checkpoint.load(tmp_path / "parts").step == 10
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "lo')
    (tmp_path / "parts" / ".checkpoint.pt.4711.tmp").write_bytes(b"half of it")
    assert run(tmp_path / "parts") == 0
    assert run(tmp_path / "whole") == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")
    assert not list((tmp_path / "parts").glob("*.tmp"))
    assert not list((tmp_path / "parts").glob(".*.tmp"))


def test_workers_change_nothing(tmp_path):
    assert run(tmp_path / "whole") == 0
    assert train(task({"train": to_dict(CONFIG)}), CONFIG, Pairs(), 2, tmp_path / "workers") == 0
    assert_same(tmp_path / "whole", tmp_path / "workers")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_the_whole_process_group_leaves_the_workers_at_work(tmp_path, number):
    def on_step(step):
        if step == 7 and get_worker_info() is not None:
            os.kill(os.getpid(), number)
            os.kill(os.getppid(), number)

    assert train(task({"train": to_dict(CONFIG)}), CONFIG, Pairs(on_step=on_step), 2, tmp_path / "parts") == 130
    assert checkpoint.load(tmp_path / "parts").step < 20
    assert run(tmp_path / "parts") == 0
    assert run(tmp_path / "whole") == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")


def test_finished_run_stays_as_it_is(tmp_path, capsys):
    run(tmp_path / "run")
    before = state(tmp_path / "run")
    assert run(tmp_path / "run") == 0
    assert "already at step 20 of 20" in capsys.readouterr().err
    assert torch.equal(before[1]["0.weight"], state(tmp_path / "run")[1]["0.weight"])


def test_a_setting_that_came_after_the_run_counts_as_its_default(tmp_path):
    """A teacher begun before linear prediction existed goes on without it, and with it is another run."""
    model = small_teacher()
    config = to_dict(model.config)
    old = {name: value for name, value in config.items() if name != "linear_prediction"}
    defaults = _defaults(Task("teacher", model, config, loss=None, validate=None))
    Run(tmp_path / "run", "teacher", {"model": old}).scalars(1, {"loss": 0.0})
    Run(tmp_path / "run", "teacher", {"model": config}, defaults)
    Run(tmp_path / "again", "teacher", {"model": old}).scalars(1, {"loss": 0.0})
    with pytest.raises(UserError, match=r"found a run with model\.linear_prediction = 0, expected 4; choose another"):
        Run(tmp_path / "again", "teacher", {"model": config | {"linear_prediction": 4}}, defaults)


def test_another_configuration_or_another_folder_is_refused(tmp_path):
    run(tmp_path / "run", steps=5)
    with pytest.raises(UserError, match=r"found a run with train\.lr = 0\.01, expected 0\.5; choose another --out"):
        run(tmp_path / "run", lr=0.5)
    with pytest.raises(UserError, match=r"train\.lr = 0\.01, expected 0\.5; train\.seed = 0, expected 3; choose"):
        run(tmp_path / "run", lr=0.5, seed=3, log_every=7)
    assert run(tmp_path / "run", steps=6, log_every=1, validate_every=3) == 0
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mother.txt").write_text("dear")
    with pytest.raises(UserError, match="found a folder with other files"):
        run(tmp_path / "letters")
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["mother.txt"]
    with pytest.raises(UserError, match=r"mother\.txt: found a file, expected a new or empty folder"):
        run(tmp_path / "letters" / "mother.txt")


@pytest.mark.parametrize("text", ["- a\n- list\n", "a: [1", "title: of another program\n", "", "\0"])
def test_configuration_of_something_else_is_refused_and_kept(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml: found no configuration of a run"):
        run(tmp_path)
    assert (tmp_path / "config.yaml").read_text() == text


def test_checkpoint_of_another_kind_is_refused(tmp_path):
    run(tmp_path, steps=2)
    stored = checkpoint.load(tmp_path)
    fields = {name: getattr(stored, name) for name in ("config", "model_state", "optimizer_state", "step", "extra")}
    checkpoint.save(tmp_path / checkpoint.FILE_NAME, kind="vocoder", **fields)
    with pytest.raises(UserError, match="found a vocoder, expected a toy"):
        run(tmp_path)


def test_unusable_device_leaves_no_folder_behind(tmp_path):
    with pytest.raises(UserError, match="device: found 'abacus'"):
        run(tmp_path / "run", device="abacus")
    assert not (tmp_path / "run").exists()


def test_stretched_schedule_is_said(tmp_path, capsys):
    run(tmp_path / "run", steps=5, schedule="cosine")
    run(tmp_path / "run", steps=8, schedule="cosine")
    assert "train.steps 5 -> 8: the cosine schedule is stretched" in capsys.readouterr().err
    run(tmp_path / "run", steps=7, schedule="cosine")
    said = capsys.readouterr().err
    assert "already at step 8 of 7" in said
    assert "schedule is stretched" not in said


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_recording_is_one_line_and_loses_no_step(tmp_path, workers):
    def broken(step):
        if step == 7:
            raise UserError("clip.flac: found a truncated file, expected more")

    with pytest.raises(UserError) as caught:
        run(tmp_path / "run", data=Pairs(on_step=broken), workers=workers)
    assert str(caught.value).startswith("clip.flac: found a truncated file, expected more (saved at step 7")
    assert "\n" not in str(caught.value)
    assert checkpoint.load(tmp_path / "run").step == 7
    assert run(tmp_path / "run") == 0
    assert run(tmp_path / "whole") == 0
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_interrupt_in_the_last_step_still_validates(tmp_path):
    assert (
        run(
            tmp_path / "run",
            data=Pairs(on_step=lambda step: signal.raise_signal(signal.SIGINT) if step == 19 else None),
        )
        == 0
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert (lines[-1]["step"], "validation/norm" in lines[-1]) == (20, True)
