"""The loop under a monitor: gradients of each term are right and touch nothing, verdicts are logged, said, obeyed."""

import dataclasses

import pytest
import torch

from tests.toy_run import CONFIG, Pairs, assert_same, logged, task
from wavenet import checkpoint
from wavenet.errors import Stopped, command
from wavenet.monitor import Verdict, gradient_norms
from wavenet.trainer import Validation, train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Watch:
    """Counts what it is shown; warns at every judgement, stops at the `stop`-th."""

    def __init__(self, every=2, stop=0):
        self.every, self.stop = every, stop
        self.observed, self.norms, self.judged = 0, [], 0

    def observe(self, scalars):
        self.observed += 1
        self.norms += [scalars["health/grad/far"]] if "health/grad/far" in scalars else []

    def judge(self, step, scalars):
        self.judged += 1
        assert scalars == {"norm": 1.5, "health/sign": 7.0}
        stop = "collapse: it fell; stand up" if self.judged == self.stop else None
        return Verdict({"health/diagnosis/tired": float(self.judged)}, [f"tired at {step}"], stop)

    def state(self):
        return {"observed": self.observed, "judged": self.judged}

    def restore(self, state):
        self.observed, self.judged = state["observed"], state["judged"]


def two_terms(model, batch, generator):
    error = model(batch.wav + 0.1 * torch.randn(batch.wav.shape, generator=generator)) - batch.mel
    near, far = error.square().mean(), 100 * error.abs().mean()
    return {"loss": near + far, "loss/near": near, "loss/far": far, "parts/far": far / 100}


def watched(folder, watch, steps=20, data=None):
    toy = task({})
    toy.loss, toy.monitor = two_terms, watch
    toy.validate = lambda average: Validation({"norm": 1.5}, {}, 8000, {"health/sign": 7.0})
    return train(toy, dataclasses.replace(CONFIG, steps=steps, schedule="constant"), data or Pairs(), 0, folder)


def test_gradient_norms_are_autograds_a_term_and_leave_the_gradient_alone():
    toy, batch = task(), Pairs()[0]
    terms = two_terms(toy.model, batch, torch.Generator().manual_seed(0))
    norms = gradient_norms(terms | {"loss/fixed": torch.tensor(3.0)}, toy.model.parameters())
    assert all(parameter.grad is None for parameter in toy.model.parameters())
    assert set(norms) == {"health/grad/near", "health/grad/far", "health/grad/fixed"}
    assert float(norms["health/grad/fixed"]) == 0.0
    for name in ("near", "far"):
        toy.model.zero_grad()
        terms[f"loss/{name}"].backward(retain_graph=True)
        expected = torch.cat([parameter.grad.flatten() for parameter in toy.model.parameters()]).norm()
        torch.testing.assert_close(norms[f"health/grad/{name}"], expected)


def test_a_watched_run_computes_what_an_unwatched_one_does(tmp_path):
    watched(tmp_path / "alone", None)
    watched(tmp_path / "watched", Watch(every=1))
    assert_same(tmp_path / "alone", tmp_path / "watched")


def test_what_is_measured_and_judged_is_logged_under_its_own_name(tmp_path):
    watch = Watch()
    assert watched(tmp_path / "run", watch) == 0
    assert (watch.observed, len(watch.norms), watch.judged) == (20, 10, 3)
    steps = [line for line in logged(tmp_path / "run") if "loss" in line]
    assert all(line["health/grad/far"] > line["health/grad/near"] > 0 for line in steps)
    judged = [line for line in logged(tmp_path / "run") if "validation/norm" in line]
    assert [line["health/diagnosis/tired"] for line in judged] == [1.0, 2.0, 3.0]
    assert all(line["health/sign"] == 7.0 and "validation/health/sign" not in line for line in judged)


def test_no_gradient_is_measured_where_none_is_asked_for(tmp_path):
    watch = Watch(every=0)
    watched(tmp_path / "run", watch)
    assert watch.norms == []
    assert watch.observed == 20


def test_steps_that_are_skipped_are_not_observed(tmp_path):
    watch = Watch()
    watched(tmp_path / "run", watch, data=Pairs(poison=(3, 4)))
    assert watch.observed == 18


def test_warnings_are_said_and_the_run_goes_on(tmp_path, capsys):
    assert watched(tmp_path / "run", Watch()) == 0
    said = capsys.readouterr().err
    assert f"{tmp_path / 'run'}: step 8: tired at 8\n" in said
    assert "tired at 20" in said


def test_a_stop_is_saved_one_line_and_status_3(tmp_path, capsys):
    main = command("toy")(lambda argv: watched(tmp_path / "run", Watch(stop=2)))
    assert main([]) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"toy: {tmp_path / 'run'}: stopped and saved at step 16: collapse: it fell; stand up"
    stored = checkpoint.load(tmp_path / "run")
    assert (stored.step, stored.extra["monitor"]["judged"]) == (16, 2)
    assert logged(tmp_path / "run")[-1]["health/diagnosis/tired"] == 2.0


def test_monitor_goes_on_with_the_run(tmp_path):
    with pytest.raises(Stopped):
        watched(tmp_path / "run", Watch(stop=1))
    watch = Watch(stop=3)
    with pytest.raises(Stopped, match="at step 20: collapse"):
        watched(tmp_path / "run", watch)
    assert (watch.observed, watch.judged) == (20, 3)
    watched(tmp_path / "unwatched", None)
    assert "monitor" not in checkpoint.load(tmp_path / "unwatched").extra
