"""The one training loop. A step is passed in; the loop knows optimiser, schedule, average, log and resume.

The batch of step k is batches[k] and its noise generator is seeded with (seed, k): nothing else is random, so a resumed
run computes bit for bit what the uninterrupted one does.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from wavenet import checkpoint
from wavenet.arguments import to_dict
from wavenet.batches import Guarded, moved
from wavenet.config import TrainConfig
from wavenet.device import in_bf16, resolve_device
from wavenet.errors import DONE, INTERRUPTED, Stopped, UserError
from wavenet.heap import kept_heap
from wavenet.interrupt import Interruption, leave_signals_to_the_loop
from wavenet.monitor import Monitor, Verdict, gradient_norms
from wavenet.run import Run
from wavenet.schedule import learning_rate
from wavenet.stopwatch import part

# How often the bar of a run whose output goes to a file is written [s].
_QUIET_INTERVAL = 30.0


@dataclasses.dataclass
class Validation:
    """What held-out clips say: scalars, signals (T,) to hear and see, and for a monitor "health/..." scalars."""

    scalars: dict[str, float]
    audio: dict[str, Tensor]
    sample_rate: int
    health: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Task:
    """What is trained: model, loss, validation, and what its checkpoint and configuration record say.

    loss(model, batch, generator) -> {"loss": scalar, other named scalars to log}. validate(average model in eval mode).
    progress: the scalar that the bar shows in nats/sample. monitor: what judges the run after each validation.
    """

    kind: str
    model: nn.Module
    model_config: dict[str, Any]
    loss: Callable[[nn.Module, Any, torch.Generator], dict[str, Tensor]]
    validate: Callable[[nn.Module], Validation]
    progress: str = "nll"
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    monitor: Monitor | None = None


Batches = Dataset[Any] | Callable[[], Dataset[Any]]


def train(task: Task, config: TrainConfig, batches: Batches, workers: int, run: Path) -> int:
    """Train to config.steps in the folder `run`, from where it stands. Returns 0, or 130 when interrupted and saved.

    batches: a batch for every step; or what makes them, called once the folder is known to be this run's. Raises
    UserError when the folder holds another run, Stopped, saved, when config.bad_steps steps in a row were not finite or
    the monitor ends it.
    """
    device = torch.device(resolve_device(config.device))
    threads = torch.get_num_threads()
    if config.threads:
        torch.set_num_threads(config.threads)
    try:
        with kept_heap():
            return _Loop(task, config, device, Run(run, task.kind, task.record, _defaults(task))).run(batches, workers)
    finally:
        torch.set_num_threads(threads)


def _defaults(task: Task) -> dict[str, Any]:
    """The model's configuration as it is when nothing is set."""
    config = getattr(task.model, "config", None)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return {}
    return {"model": to_dict(type(config)())}


class _Loop:
    def __init__(self, task: Task, config: TrainConfig, device: torch.device, run: Run) -> None:
        self.task, self.config, self.device, self.run_folder = task, config, device, run
        self.bf16 = in_bf16(config.autocast, str(device))
        self.model = task.model.to(self.device).train()
        optimizer = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        self.optimizer = optimizer(
            self.model.parameters(), config.lr, config.betas, weight_decay=config.weight_decay, fused=True
        )
        self.average = self._averaged() if config.ema_decay else None
        self.step, self.bad_in_a_row, self.skipped = 0, 0, 0
        self.interruption = Interruption()
        self.paused = 0.0  # seconds of validation, which do not count as training speed
        self._resume()

    def run(self, batches: Batches, workers: int) -> int:
        if self.step >= self.config.steps:
            print(f"{self.run_folder.folder}: already at step {self.step} of {self.config.steps}", file=sys.stderr)
            return DONE
        chosen = [f"train.autocast auto: {'bf16' if self.bf16 else 'none'}"] if self.config.autocast == "auto" else []
        for note in [*self.run_folder.notes, *chosen]:
            print(note, file=sys.stderr)
        try:
            every = batches if isinstance(batches, Dataset) else batches()
            with self.interruption:
                self._train(every, workers)
        finally:
            self.run_folder.close()
        if self.interruption.asked and self.step < self.config.steps:
            done = f"interrupted at step {self.step} of {self.config.steps} and saved"
            print(f"{self.run_folder.folder}: {done}; the same command goes on from there", file=sys.stderr)
            return INTERRUPTED
        return DONE

    def _train(self, batches: Dataset[Any], workers: int) -> None:
        loader = DataLoader(
            Guarded(batches),
            batch_size=None,
            sampler=range(self.step, self.config.steps),
            num_workers=workers,
            worker_init_fn=leave_signals_to_the_loop,
        )
        window: list[dict[str, float]] = []
        began, done_before = time.monotonic(), self.step
        interval = 0.2 if sys.stderr.isatty() else _QUIET_INTERVAL
        with tqdm(
            total=self.config.steps, initial=self.step, unit="step", mininterval=interval, dynamic_ncols=True
        ) as bar:
            for batch in loader:
                if isinstance(batch, UserError):
                    self._save()
                    raise UserError(f"{batch} (saved at step {self.step}: the same command goes on from there)")
                window.append(self._update(moved(batch, self.device)))
                if self.step % self.config.log_every == 0 or self.step == self.config.steps:
                    samples = (self.step - done_before) * self.config.batch_size * self.config.crop_length
                    speed = samples / (time.monotonic() - began - self.paused)
                    self._log(_means(window) | {"train/skipped_steps": float(window.count({}))}, speed, bar)
                    window = []
                bar.update()
                finished = self.step == self.config.steps
                if finished or self.step % self.config.checkpoint_every == 0:
                    self._save()
                if finished or (self.step % self.config.validate_every == 0 and not self.interruption.asked):
                    self._validate()
                if self.interruption.asked and not finished:
                    self._save()
                    return

    def _update(self, batch: Any) -> dict[str, float]:
        """One step of optimiser and average. Returns the scalars, or {} when skipped: loss or gradient not finite.

        Other scalars may be NaN: they are logged, and stop nothing.
        """
        rate = learning_rate(self.config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        generator = torch.Generator().manual_seed(_seed(self.config.seed, self.step))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            terms = self.task.loss(self.model, batch, generator)
        monitor = self.task.monitor
        norms = {}
        if monitor is not None and monitor.every and self.step % monitor.every == 0:
            norms = gradient_norms(terms, self.model.parameters())
        with part("backward"):
            terms["loss"].backward()
        with part("gradient norm"):
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        scalars = {name: float(value.detach()) for name, value in (terms | norms).items()}
        scalars |= {"grad/norm": float(norm), "train/learning_rate": rate}
        self.step += 1
        if not (math.isfinite(scalars["loss"]) and math.isfinite(scalars["grad/norm"])):
            self._skip([name for name, value in scalars.items() if not math.isfinite(value)])
            return {}
        self.bad_in_a_row = 0
        with part("optimiser"):
            self.optimizer.step()
        if self.average is not None:
            with part("average"):
                self.average.update_parameters(self.model)
        if monitor is not None:
            monitor.observe(scalars)
        return scalars

    def _skip(self, strange: list[str]) -> None:
        self.skipped += 1
        self.bad_in_a_row += 1
        if self.bad_in_a_row >= self.config.bad_steps:
            self._save()
            raise Stopped(
                f"{self.run_folder.folder}: found {', '.join(strange)} not finite {self.bad_in_a_row} steps running, "
                f"at step {self.step}, expected finite numbers; saved. Try a new run with a lower train.lr or "
                "train.clip_norm, or with train.autocast none"
            )

    def _log(self, scalars: dict[str, float], speed: float, bar: tqdm[Any]) -> None:
        self.run_folder.scalars(
            self.step, scalars | {"train/samples_per_second": speed, "train/skipped_total": float(self.skipped)}
        )
        name, unit = (self.task.progress, " nats/sample") if self.task.progress in scalars else ("loss", "")
        shown = scalars.get(name, float("nan"))
        bar.set_postfix_str(f"{name} {shown:.3f}{unit}, {speed / 1000:.1f} k samples/s", refresh=False)

    def _validate(self) -> None:
        average = self.average.module if self.average is not None else self.model
        began = time.monotonic()
        average.eval()
        with torch.no_grad():
            found = self.task.validate(average)
        self.model.train()
        self.paused += time.monotonic() - began
        monitor = self.task.monitor
        verdict = Verdict() if monitor is None else monitor.judge(self.step, found.scalars | found.health)
        scalars = {f"validation/{name}": value for name, value in found.scalars.items()}
        self.run_folder.scalars(self.step, scalars | found.health | verdict.scalars)
        self.run_folder.sounds(self.step, found.audio, found.sample_rate)
        for warning in verdict.warnings:
            tqdm.write(f"{self.run_folder.folder}: step {self.step}: {warning}", file=sys.stderr)
        if verdict.stop is not None:
            self._save()
            raise Stopped(f"{self.run_folder.folder}: stopped and saved at step {self.step}: {verdict.stop}")

    def _save(self) -> None:
        checkpoint.save(
            self.run_folder.checkpoint_path,
            kind=self.task.kind,
            config=self.task.model_config,
            model_state=self.model.state_dict(),
            ema_state=None if self.average is None else self.average.module.state_dict(),
            optimizer_state=self.optimizer.state_dict(),
            step=self.step,
            extra={
                "skipped": self.skipped,
                "bad_in_a_row": self.bad_in_a_row,
                "averaged": 0 if self.average is None else int(self.average.n_averaged),
                "record": self.task.record,
            }
            | ({} if self.task.monitor is None else {"monitor": self.task.monitor.state()}),
        )

    def _resume(self) -> None:
        stored = self.run_folder.resume()
        if stored is None:
            return
        if stored.kind != self.task.kind:
            raise UserError(f"{self.run_folder.folder}: found a {stored.kind}, expected a {self.task.kind}")
        self.model.load_state_dict(stored.model_state)
        if stored.optimizer_state is not None:
            self.optimizer.load_state_dict(stored.optimizer_state)
        if self.average is not None and stored.ema_state is not None:
            self.average.module.load_state_dict(stored.ema_state)
            self.average.n_averaged.fill_(int(stored.extra["averaged"]))
        self.step = stored.step
        self.skipped, self.bad_in_a_row = int(stored.extra["skipped"]), int(stored.extra["bad_in_a_row"])
        if self.task.monitor is not None and "monitor" in stored.extra:
            self.task.monitor.restore(stored.extra["monitor"])

    def _averaged(self) -> AveragedModel:
        """Exponential moving average whose decay grows as (1 + n) / (10 + n) at first: short runs forget the start."""
        full = self.config.ema_decay

        def average(averaged: Any, current: Any, count: Tensor | int) -> None:
            get_ema_multi_avg_fn(min(full, (1 + int(count)) / (10 + int(count))))(averaged, current, count)

        return AveragedModel(self.model, multi_avg_fn=average)


def _means(window: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every scalar over the steps that have it."""
    values: dict[str, list[float]] = {}
    for scalars in window:
        for name, value in scalars.items():
            values.setdefault(name, []).append(value)
    return {name: sum(found) / len(found) for name, found in values.items()}


def _seed(seed: int, step: int) -> int:
    return (seed * 1_000_003 + step) % 2**63
