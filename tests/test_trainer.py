"""The loop: resume is bit-exact, bad steps are skipped, another configuration is refused, Ctrl-C saves."""

import dataclasses
import errno
import json
import signal
import warnings
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from wavenet import checkpoint
from wavenet.config import TrainConfig, to_dict
from wavenet.device import resolve_device
from wavenet.errors import UserError
from wavenet.trainer import Task, Validation, train

warnings.filterwarnings("ignore", category=DeprecationWarning)


class Pair(NamedTuple):
    wav: torch.Tensor
    mel: torch.Tensor


class Pairs(Dataset):
    """[step] -> a batch that depends on the step alone; `poison` gives steps whose batch is not finite."""

    def __init__(self, poison=(), on_step=None):
        self.poison, self.on_step = poison, on_step

    def __getitem__(self, step):
        if self.on_step is not None:
            self.on_step(step)
        wav = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        return Pair(wav * float("nan") if step in self.poison else wav, wav.flip(1))


def loss(model, batch, generator):
    error = model(batch.wav + 0.1 * torch.randn(batch.wav.shape, generator=generator)) - batch.mel
    value = error.square().mean()
    return {"loss": value, "nll": value.detach(), "parts/largest": error.abs().max().detach()}


def task(record=None) -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))

    def validate(average):
        assert not average.training
        return Validation({"norm": float(sum(p.square().sum() for p in average.parameters()))}, {}, 8000)

    return Task("toy", model, {"width": 8}, loss, validate, record=record or {})


CONFIG = TrainConfig(
    steps=20,
    batch_size=4,
    crop_length=3,
    lr=1e-2,
    warmup_steps=3,
    ema_decay=0.9,
    log_every=2,
    validate_every=8,
    checkpoint_every=5,
)


def run(folder, steps=20, data=None, config=CONFIG, **changes) -> int:
    config = dataclasses.replace(config, steps=steps, **changes)
    return train(task({"train": to_dict(config)}), config, data or Pairs(), 0, folder)


def state(folder):
    stored = checkpoint.load(folder)
    tensors = dict(stored.model_state) | {f"ema.{k}": v for k, v in (stored.ema_state or {}).items()}
    for index, slots in stored.optimizer_state["state"].items():
        tensors |= {f"adam.{index}.{name}": value for name, value in slots.items()}
    return stored.step, tensors


def assert_same(one, two):
    (step_one, tensors_one), (step_two, tensors_two) = state(one), state(two)
    assert step_one == step_two
    assert tensors_one.keys() == tensors_two.keys()
    for name, value in tensors_one.items():
        assert torch.equal(value, tensors_two[name]), name


@pytest.mark.parametrize("schedule", ["constant", "halving"])
def test_resume_is_bit_exact(tmp_path, schedule):
    assert run(tmp_path / "whole", schedule=schedule) == 0
    assert run(tmp_path / "parts", steps=11, schedule=schedule) == 0
    assert run(tmp_path / "parts", schedule=schedule) == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")


def interrupt_at(step_to_stop: int):
    def on_step(step):
        if step == step_to_stop:
            signal.raise_signal(signal.SIGINT)

    return Pairs(on_step=on_step)


def test_interrupted_run_saves_says_how_to_go_on_and_resumes_bit_exact(tmp_path, capsys):
    before = signal.getsignal(signal.SIGINT)
    assert run(tmp_path / "parts", schedule="cosine", data=interrupt_at(7)) == 130
    assert signal.getsignal(signal.SIGINT) is before
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


def test_resume_after_a_kill_drops_what_was_logged_after_the_checkpoint(tmp_path):
    def kill(step):
        if step == 13:
            raise MemoryError("killed")

    with pytest.raises(MemoryError):
        run(tmp_path / "parts", data=Pairs(on_step=kill))
    assert checkpoint.load(tmp_path / "parts").step == 10
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "lo')
    assert run(tmp_path / "parts") == 0
    assert run(tmp_path / "whole") == 0
    assert_same(tmp_path / "whole", tmp_path / "parts")
    logs = [
        [
            {k: v for k, v in json.loads(line).items() if k != "train/samples_per_second"}
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("parts", "whole")
    ]
    assert logs[0] == logs[1]


def test_workers_change_nothing(tmp_path):
    assert run(tmp_path / "whole") == 0
    config = CONFIG
    assert train(task({"train": to_dict(config)}), config, Pairs(), 2, tmp_path / "workers") == 0
    assert_same(tmp_path / "whole", tmp_path / "workers")


def test_finished_run_stays_as_it_is(tmp_path, capsys):
    run(tmp_path / "run")
    before = state(tmp_path / "run")
    assert run(tmp_path / "run") == 0
    assert "already at step 20 of 20" in capsys.readouterr().err
    assert torch.equal(before[1]["0.weight"], state(tmp_path / "run")[1]["0.weight"])


def test_another_configuration_or_another_folder_is_refused(tmp_path):
    run(tmp_path / "run", steps=5)
    with pytest.raises(UserError, match=r"found a run with train\.lr = 0\.01, expected 0\.5; choose another --out"):
        run(tmp_path / "run", lr=0.5)
    assert run(tmp_path / "run", steps=6, log_every=1, validate_every=3) == 0
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mother.txt").write_text("dear")
    with pytest.raises(UserError, match="found a folder with other files"):
        run(tmp_path / "letters")
    assert (tmp_path / "letters" / "mother.txt").read_text() == "dear"


def test_stretched_schedule_is_said(tmp_path, capsys):
    run(tmp_path / "run", steps=5, schedule="cosine")
    run(tmp_path / "run", steps=8, schedule="cosine")
    assert "train.steps 5 -> 8: the cosine schedule is stretched" in capsys.readouterr().err


def test_non_finite_steps_are_skipped_counted_and_touch_nothing(tmp_path):
    run(tmp_path / "clean", steps=3)
    run(tmp_path / "poisoned", steps=6, data=Pairs(poison=(3, 4, 5)), schedule="constant")
    run(tmp_path / "clean3", steps=3, schedule="constant")
    (_, one), (_, two) = state(tmp_path / "poisoned"), state(tmp_path / "clean3")
    assert all(torch.equal(one[name], two[name]) for name in one)
    stored = checkpoint.load(tmp_path / "poisoned")
    assert (stored.step, stored.extra["skipped"]) == (6, 3)
    logged = [json.loads(line) for line in (tmp_path / "poisoned" / "metrics.jsonl").read_text().splitlines()]
    assert logged[-2]["train/skipped_total"] == 3.0


def test_persistent_non_finite_loss_stops_with_a_diagnosis_and_is_saved(tmp_path):
    with pytest.raises(UserError, match=r"found loss, nll, .* not finite 4 steps running, at step 14") as caught:
        run(tmp_path / "run", data=Pairs(poison=range(10, 20)), bad_steps=4)
    assert "train.lr" in str(caught.value)
    assert checkpoint.load(tmp_path / "run").step == 14


def test_skips_between_good_steps_do_not_stop_a_run(tmp_path):
    assert run(tmp_path / "run", data=Pairs(poison=range(0, 20, 2)), bad_steps=2) == 0


def test_average_moves_the_right_way(tmp_path):
    """After many steps the average lies between the start and the end, much nearer the end."""
    start = {name: value.clone() for name, value in task().model.state_dict().items()}
    run(tmp_path / "run", steps=200, schedule="constant")
    stored = checkpoint.load(tmp_path / "run")
    for name, first in start.items():
        whole = (stored.model_state[name] - first).norm()
        behind = (stored.model_state[name] - stored.ema_state[name]).norm()
        assert 0 < behind < 0.5 * whole


def test_average_follows_its_definition(tmp_path):
    """a_n = d a_{n-1} + (1 - d) w_n with d = min(0.9, (1 + n) / (10 + n)), replayed from checkpoints of every step."""
    average = None
    for step in range(1, 6):
        run(tmp_path / "run", steps=step, schedule="constant")
        weights = checkpoint.load(tmp_path / "run").model_state["0.weight"]
        n = step - 1
        decay = min(0.9, (1 + n) / (10 + n))
        average = weights.clone() if average is None else decay * average + (1 - decay) * weights
        torch.testing.assert_close(checkpoint.load(tmp_path / "run").ema_state["0.weight"], average)


def test_gradient_is_clipped_and_its_norm_logged(tmp_path):
    run(tmp_path / "run", steps=2, clip_norm=1e-3, log_every=1)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["grad/norm"] > 1e-2
    moment = checkpoint.load(tmp_path / "run").optimizer_state["state"]
    total = sum(float(slots["exp_avg"].square().sum()) for slots in moment.values()) ** 0.5
    assert total < 2e-4  # (1 - 0.9) x 1e-3 after one step, at most twice that after two


def test_scalars_sounds_and_pictures_reach_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sound = 0.5 * torch.sin(torch.arange(4000) * 0.5)
    toy = task({"train": to_dict(CONFIG)})
    toy.validate = lambda average: Validation({"nll": 1.5}, {"sample": sound}, 8000)
    train(toy, CONFIG, Pairs(), 0, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"audio": 0, "images": 0, "scalars": 0})
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == list(range(2, 21, 2))
    assert [e.value for e in events.Scalars("validation/nll")] == [1.5, 1.5, 1.5]
    assert [e.step for e in events.Audio("audio/sample")] == [8, 16, 20]
    assert events.Images("spectrogram/sample")[0].height == 256


def test_full_disk_is_an_os_error_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    real = checkpoint.torch.save

    def full(stored, file):
        if stored["step"] > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(stored, file)

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / "run")
    assert checkpoint.load(tmp_path / "run").step == 5


def test_threads_are_restored(tmp_path):
    seen = []
    torch.set_num_threads(1)
    run(tmp_path / "run", steps=1, threads=2, data=Pairs(on_step=lambda step: seen.append(torch.get_num_threads())))
    assert (seen, torch.get_num_threads()) == ([2], 1)


def test_device_names_are_checked():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda")
    with pytest.raises(UserError, match="device: found 'gpu'"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="device: found 'cuda:0' on a machine without a usable GPU"):
            resolve_device("cuda:0")


def test_bf16_autocast_reaches_the_model_and_not_the_weights(tmp_path):
    seen = []
    toy = task({})
    toy.model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    train(toy, dataclasses.replace(CONFIG, steps=1, autocast="bf16"), Pairs(), 0, tmp_path / "run")
    assert seen[0] == torch.bfloat16
    assert checkpoint.load(tmp_path / "run").model_state["0.weight"].dtype == torch.float32
