"""A run folder: checkpoint, resolved configuration, scalars as JSON lines and as TensorBoard events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from torch import Tensor

from wavenet import checkpoint
from wavenet.arguments import to_dict
from wavenet.errors import UserError
from wavenet.spectrogram import picture

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_CUT = 2**62  # the step of a line that was cut short
CONFIG, METRICS = "config.yaml", "metrics.jsonl"
# What may change between a run and its continuation: where and how long it runs and what it prints, never what it
# computes.
_FREE = {
    "train.steps",
    "train.device",
    "train.threads",
    "train.log_every",
    "train.validate_every",
    "train.checkpoint_every",
    "train.sample_seconds",
    "data.root",
    "data.workers",
    "data.validation_clips",
}


class Run:
    """The folder of one run. Opening it writes config.yaml, or holds `record` against the one that is there.

    defaults: a configuration without settings of one's own, {"model": ...}. A setting that a run does not know, because
    it was begun before there was one, counts as that: defaults are chosen so that they change nothing.
    """

    def __init__(self, folder: Path, kind: str, record: dict[str, Any], defaults: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self._writer: SummaryWriter | None = None
        record = to_dict({"kind": kind, **record})
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: found a file, expected a new or empty folder, or a run")
        if (folder / CONFIG).is_file():
            self._compare(record, flat(to_dict(defaults or {})))
        elif folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder}: found a folder with other files, expected a new or empty one, or a run")
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{CONFIG}.tmp"
        temporary.write_text(yaml.safe_dump(record, sort_keys=False), encoding="utf-8")
        temporary.replace(folder / CONFIG)

    @property
    def checkpoint_path(self) -> Path:
        """Where the latest checkpoint is."""
        return self.folder / checkpoint.FILE_NAME

    def resume(self) -> checkpoint.Checkpoint | None:
        """The latest checkpoint (on the CPU), or None for a new run; drops what was logged after it."""
        stored = checkpoint.load(self.checkpoint_path) if self.checkpoint_path.is_file() else None
        step = stored.step if stored else 0
        for half_written in self.folder.glob(f".{checkpoint.FILE_NAME}.*.tmp"):  # by a process that was killed
            half_written.unlink(missing_ok=True)
        metrics = self.folder / METRICS
        if metrics.is_file():
            kept = [line for line in metrics.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
            temporary = self.folder / f".{METRICS}.tmp"
            temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
            temporary.replace(metrics)
        return stored

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Log scalars under their names."""
        line = json.dumps({"step": step, **{name: _finite(value) for name, value in values.items()}})
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        for name, value in values.items():
            self._tensorboard(step).add_scalar(name, value, step)

    def sounds(self, step: int, audio: dict[str, Tensor], sample_rate: int) -> None:
        """Log audio (T,) as sound and as spectrogram picture."""
        for name, wav in audio.items():
            # A model that diverged may say NaN: logged as silence or full scale, for the run must go on.
            wav = wav.detach().float().cpu().nan_to_num(0.0, 1.0, -1.0)
            writer = self._tensorboard(step)
            # TensorBoard wants [-1, 1]; the picture and every metric are made of the signal itself.
            writer.add_audio(f"audio/{name}", wav.clamp(-1, 1)[None], step, sample_rate)
            writer.add_image(f"spectrogram/{name}", picture(wav, sample_rate), step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close what is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _tensorboard(self, step: int) -> SummaryWriter:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=step)
        return self._writer

    def _compare(self, record: dict[str, Any], defaults: dict[str, Any]) -> None:
        found, wanted = flat(_read_config(self.folder / CONFIG)), flat(record)
        found = {name: value for name, value in defaults.items() if name in wanted} | found
        if not (self.checkpoint_path.is_file() or (self.folder / METRICS).is_file()):
            return  # claimed, and stopped by a mistake before its first step: it may begin otherwise
        changed = [name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]
        others = [f"{name} = {found.get(name)}, expected {wanted.get(name)}" for name in changed if name not in _FREE]
        if others:
            raise UserError(f"{self.folder}: found a run with {'; '.join(others)}; choose another --out")
        if "train.steps" in changed and wanted.get("train.schedule") in ("cosine", "linear"):
            before, now = found.get("train.steps"), wanted.get("train.steps")
            self.notes.append(f"train.steps {before} -> {now}: the {wanted['train.schedule']} schedule is stretched")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, {"step": ..., name: value}, but one that was cut short is left out.

    Raises UserError when the folder has none.
    """
    path = folder / METRICS
    if not path.is_file():
        raise UserError(f"{path}: found no such file, expected the log of a run")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if _step(line) < _CUT]


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        values = None
    if not isinstance(values, dict) or "kind" not in values:
        raise UserError(f"{path}: found no configuration of a run, expected a new or empty folder, or a run")
    return values


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names: {"a": {"b": 1}} -> {"a.b": 1}; lists stay whole."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return _CUT


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None
