"""The loop: bad steps are skipped, average and clipping follow their definitions, scalars and sounds are logged."""

import dataclasses
import errno

import pytest
import torch

from tests.toy_run import CONFIG, Pair, Pairs, assert_same, logged, loss, run, state, task
from wavenet import checkpoint
from wavenet.arguments import to_dict
from wavenet.device import resolve_device
from wavenet.errors import Stopped, UserError
from wavenet.trainer import Validation, train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_non_finite_steps_are_skipped_counted_and_touch_nothing(tmp_path):
    run(tmp_path / "clean", steps=3)
    run(tmp_path / "poisoned", steps=6, data=Pairs(poison=(3, 4, 5)), schedule="constant")
    run(tmp_path / "clean3", steps=3, schedule="constant")
    (_, one), (_, two) = state(tmp_path / "poisoned"), state(tmp_path / "clean3")
    assert all(torch.equal(one[name], two[name]) for name in one)
    stored = checkpoint.load(tmp_path / "poisoned")
    assert (stored.step, stored.extra["skipped"]) == (6, 3)
    lines = logged(tmp_path / "poisoned")
    assert [line["train/skipped_steps"] for line in lines[:-1]] == [0.0, 1.0, 2.0]
    assert lines[-2]["train/skipped_total"] == 3.0
    assert "loss" not in lines[-2]


def test_means_are_over_the_steps_that_were_taken(tmp_path):
    run(tmp_path / "each", steps=2, schedule="constant", log_every=1)
    run(tmp_path / "mean", steps=3, schedule="constant", log_every=3, data=Pairs(poison=(2,)))
    each, mean = logged(tmp_path / "each"), logged(tmp_path / "mean")[0]
    for name in ("loss", "parts/largest", "grad/norm", "train/learning_rate"):
        assert mean[name] == pytest.approx((each[0][name] + each[1][name]) / 2)


def test_finite_loss_with_a_gradient_that_is_not_is_skipped(tmp_path):
    toy = task({})
    start = {name: value.clone() for name, value in toy.model.state_dict().items()}
    toy.loss = lambda model, batch, generator: {"loss": (0 * model(batch.wav)).abs().sum().sqrt()}
    with pytest.raises(Stopped, match=r"found grad/norm not finite 3 steps running, at step 3"):
        train(toy, dataclasses.replace(CONFIG, bad_steps=3), Pairs(), 0, tmp_path / "run")
    _, tensors = state(tmp_path / "run")
    assert all(
        torch.equal(tensors[name], value) and torch.equal(tensors[f"ema.{name}"], value)
        for name, value in start.items()
    )


def test_scalar_that_is_not_finite_beside_a_finite_loss_stops_nothing(tmp_path):
    toy = task({})
    toy.loss = lambda *step: loss(*step) | {"parts/odd": torch.tensor(float("nan"))}
    assert train(toy, dataclasses.replace(CONFIG, bad_steps=2), Pairs(), 0, tmp_path / "run") == 0
    run(tmp_path / "plain")
    lines = logged(tmp_path / "run")
    assert lines[0]["parts/odd"] is None
    assert [{k: v for k, v in line.items() if k != "parts/odd"} for line in lines] == logged(tmp_path / "plain")


def test_persistent_non_finite_loss_stops_with_a_diagnosis_and_is_saved(tmp_path):
    with pytest.raises(Stopped, match=r"found loss, nll, .* not finite 4 steps running, at step 14") as caught:
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
    assert logged(tmp_path / "run")[0]["grad/norm"] > 1e-2
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


def test_sound_of_a_model_that_diverged_does_not_stop_the_run(tmp_path):
    toy = task({})
    strange = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.5]).repeat(500)
    toy.validate = lambda average: Validation({"nll": float("nan")}, {"sample": strange}, 8000)
    assert train(toy, CONFIG, Pairs(), 0, tmp_path / "run") == 0
    assert logged(tmp_path / "run")[-1] == {"step": 20, "validation/nll": None}


def test_bar_says_likelihood_speed_and_time_left_and_is_quiet_in_a_file(tmp_path, capsys):
    run(tmp_path / "run")
    said = capsys.readouterr().err
    assert " nats/sample, " in said
    assert "k samples/s" in said
    assert "<00:00" in said
    assert said.count("\r") <= 3


@pytest.mark.parametrize("form", [tuple, list, lambda pair: pair._asdict()], ids=["tuple", "list", "dict"])
def test_batches_may_be_of_any_form(tmp_path, form):
    class Formed(Pairs):
        def __getitem__(self, step):
            return form(super().__getitem__(step))

    def formed_loss(model, batch, generator):
        wav, mel = batch.values() if isinstance(batch, dict) else batch
        return loss(model, Pair(wav, mel), generator)

    toy = task({})
    toy.loss = formed_loss
    assert train(toy, CONFIG, Formed(), 0, tmp_path / "formed") == 0
    run(tmp_path / "plain")
    assert_same(tmp_path / "plain", tmp_path / "formed")


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


@pytest.mark.parametrize("able", [False, True])
def test_autocast_auto_follows_the_machine_and_says_so(tmp_path, monkeypatch, capsys, able):
    seen = []
    toy = task({})
    toy.model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    train(toy, dataclasses.replace(CONFIG, steps=1, autocast="auto"), Pairs(), 0, tmp_path / "run")
    assert seen[0] == (torch.bfloat16 if able else torch.float32)
    assert f"train.autocast auto: {'bf16' if able else 'none'}" in capsys.readouterr().err
