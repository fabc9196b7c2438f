"""`distill-evaluate`: held-out clips through every system, measured, written as sound, and shown on one page."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from torch import Tensor
from tqdm import tqdm

from distill.clips import NamedClip, choose_clips, read_clips
from distill.coupling import likelihood as coupling
from distill.coupling.model import CouplingFlow
from distill.intelligibility import Heard, Recogniser, spoken_words, word_rates
from distill.intervals import pooled, students
from distill.metrics import METRICS, SETS, choose, measure
from distill.projection import project
from distill.report import RECORDING, file_name, require_matplotlib, sound_path, training_curves, write_report
from distill.systems import System, as_system, from_recording, load_systems, parts, untrained
from distill.wavevae.learning import held_out as held_out_elbo
from distill.wavevae.model import WaveVAE
from wavenet.arguments import parse_arguments
from wavenet.audio import write_audio
from wavenet.config import AudioConfig, require
from wavenet.errors import DONE, SOME_FAILED, UserError, command
from wavenet.features import LogMel
from wavenet.likelihood import held_out
from wavenet.manifest import Clip
from wavenet.teacher import AUTO, SAMPLERS, Teacher

ALL = "all"  # systems: models, their parts, and what needs no training
_DEAF = 0.5  # word error rate on recordings beyond which a gap to it means nothing
_Rows = dict[str, dict[str, float | None]]


def evaluate(
    clips: Sequence[NamedClip],
    systems: Mapping[str, System],
    audio: AudioConfig,
    out: Path,
    seed: int = 0,
    *,
    informed: Mapping[str, System] | None = None,
    baselines: Mapping[str, System] | None = None,
    metrics: str = "fast",
    projection: int = 0,
) -> dict[str, Any]:
    """Every clip through every system: sounds to out/audio/SYSTEM/CLIP.wav, numbers to out/metrics.json and back.

    A system is called as system(mel (1, M, F), generator) -> wav (1, T), an informed one, which may look at the
    recording, as system(wav (1, T), mel, generator); the speaker is added at the end where the clip has one. The
    generator is seeded by (seed, clip name), the same for all systems. Added to them: the recording itself, which is
    the ceiling, and baselines (Griffin-Lim and mel-shaped noise, unless others are given). metrics: "fast", or "all"
    (distill.metrics.choose); what cannot be measured is named on stderr, once. projection: steps that bring what every
    system makes to its mel (distill.projection).

    Returns, as in the file, {"sample_rate", "clips": [name], "metrics": [those measured], "notes": [why others were
    not], "projection", "systems": {name: {"clips": {clip: {metric: value}}, "mean", "ci95"}}}, with "heard": {clip:
    {"text", "errors", "words"}} beside a system's clips where words were recognised; ci95 is half the width of the 95%
    interval of the mean over clips (distill.intervals). "mean" and "ci95" hold every metric of METRICS, None where it
    was not measured or is not defined. Raises UserError for no clips, doubled names, and audio that is not finite or of
    another length.
    """
    if not clips:
        raise UserError("clips: found none, expected at least one")
    require(projection >= 0, "projection", projection, "0 or more")
    informed = informed or {}
    baselines = untrained(audio) if baselines is None else baselines
    _require_distinct("clip", [clip.name for clip in clips])
    _require_distinct("system", [RECORDING, *baselines, *informed, *systems])
    wordless = [clip.name for clip in clips if not spoken_words(clip.text)]
    names, notes = choose(metrics, audio, len(wordless) < len(clips))
    if wordless and "wer" in names:
        notes.append(f"WER leaves out {len(wordless)} clips without a text, or with numerals: {', '.join(wordless)}")
    recogniser = Recogniser() if "wer" in names else None
    log_mel = LogMel(audio)
    rows: dict[str, _Rows] = {name: {} for name in [RECORDING, *systems, *informed, *baselines]}
    heard: dict[str, dict[str, Heard]] = {name: {} for name in rows}
    progress = tqdm(total=len(clips) * len(rows), desc="evaluate", unit="clip", disable=None)
    for note in notes:
        progress.write(f"distill-evaluate: {note}", file=sys.stderr)
    for clip in clips:
        wav = clip.wav[: len(clip.wav) - len(clip.wav) % audio.hop_length]
        mel = log_mel(wav[None].float())
        arguments = () if clip.speaker is None else (clip.speaker,)
        knowing = {name: partial(system, wav[None]) for name, system in informed.items()}
        called: dict[str, System] = {RECORDING: _same(wav), **systems, **knowing, **baselines}
        for name, system in called.items():

            def tell(what: str, name: str = name) -> None:
                progress.set_postfix_str(f"{name}, {what}")

            found = system(mel, _generator(seed, clip.name), *arguments)[0].detach().cpu().float()
            if name != RECORDING and found.shape == wav.shape:  # else `measure` says what is wrong
                found = project(found[None], mel, audio, projection)[0]
            _write(out / sound_path(name, clip.name), found, audio.sample_rate)
            measured = measure(found, wav, audio, names, tell)
            rows[name][clip.name] = {key: _finite(value) for key, value in measured.items()}
            if recogniser is not None:
                tell(METRICS["wer"].heading)
                score = recogniser.score(found, audio.sample_rate, clip.text)
                if score is not None:
                    heard[name][clip.name] = score
                rows[name][clip.name] |= word_rates(score, heard[RECORDING].get(clip.name))
            progress.update()
    progress.close()
    summaries = {name: _summary(values, heard[name], heard[RECORDING]) for name, values in rows.items()}
    natural = summaries[RECORDING]["mean"]["wer"]
    if natural is not None and natural > _DEAF:
        notes.append(f"the recogniser gets {natural:.0%} of the recordings' words wrong: WER and its gap say little")
        print(f"distill-evaluate: {notes[-1]}", file=sys.stderr)
    result = {
        "sample_rate": audio.sample_rate,
        "clips": [clip.name for clip in clips],
        "metrics": names,
        "notes": notes,
        "projection": projection,
        "systems": summaries,
    }
    write_json(out / "metrics.json", result)
    return result


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all; NaN is refused."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


@command("distill-evaluate")
def main(argv: Sequence[str] | None = None) -> int:
    """Held-out clips through models, Griffin-Lim and shaped noise: metrics.json, sounds and report.html. Returns 0."""
    arguments = parse_arguments(_parser(), argv)
    out = Path(arguments.out)
    require(not out.exists() or out.is_dir(), "--out", arguments.out, "a folder")
    methods = (AUTO, *SAMPLERS)
    require(arguments.method in methods, "--method", arguments.method, f"one of {', '.join(methods)}")
    for name in ("seed", "temperature", "projection"):
        require(getattr(arguments, name) >= 0, f"--{name}", getattr(arguments, name), "0 or more")
    require(arguments.clips > 0, "--clips", arguments.clips, "at least 1")
    if (out / "metrics.json").exists() and not arguments.overwrite:
        raise UserError(f"{out}: found another evaluation, expected a new folder (--overwrite replaces it)")
    require_matplotlib()  # before hours of sampling, not after
    loaded = load_systems(arguments.checkpoints, arguments.device)
    audio = next(iter(loaded.values())).config.audio
    chosen, problems = choose_clips(arguments.data, arguments.split, arguments.clips, audio)
    chosen, clips, unreadable = read_clips(chosen, list(loaded.values()))
    problems += unreadable
    for problem in problems:
        print(f"distill-evaluate: {problem}", file=sys.stderr)
    if not clips:
        raise UserError(f"{arguments.data}: found no usable recording among {len(problems)}, expected at least one")
    systems = {name: as_system(model, arguments.temperature, arguments.method) for name, model in loaded.items()}
    compared, informed = arguments.systems == ALL, dict[str, System]()
    for name, model in loaded.items() if compared else []:
        systems |= parts(name, model)
        informed |= from_recording(name, model)
    steps = arguments.projection
    metrics = evaluate(
        clips,
        systems,
        audio,
        out,
        arguments.seed,
        informed=informed,
        baselines=None if compared else {},
        metrics=arguments.metrics,
        projection=steps,
    )
    if len({clip.speaker for clip in chosen}) > 1:
        metrics["speakers"] = {clip.id: clip.speaker for clip in chosen}
    for name, model in loaded.items():
        if isinstance(model, Teacher | CouplingFlow):
            metrics["systems"][name]["likelihood"] = _likelihood(model, chosen)
        if isinstance(model, WaveVAE):
            metrics["systems"][name]["elbo"] = {
                key: _finite(value) for key, value in held_out_elbo(model, chosen).items()
            }
    write_json(out / "metrics.json", metrics)
    page = write_report(
        out,
        title="Evaluation",
        metrics=metrics,
        curves=training_curves({name: Path(path) for name, path in zip(loaded, arguments.checkpoints, strict=True)}),
        benchmark=None,
        notes=[
            f"{len(chosen)} {chosen[0].split} clips of {arguments.data}, seed {arguments.seed}, "
            f"temperature {arguments.temperature:g}."
            + (f" What every system made was brought to its mel in {steps} steps." if steps else "")
        ],
        texts={clip.id: clip.text for clip in chosen},
        name="report.html",
    )
    print(_table(metrics))
    print(f"{page}")
    return SOME_FAILED if problems else DONE


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="distill-evaluate", description=main.__doc__)
    parser.add_argument("checkpoints", type=str, nargs="+", help="run folders, files, or names of shipped weights")
    parser.add_argument("--data", type=str, required=True, help="a corpus folder, a folder of recordings, or bundled")
    parser.add_argument("--out", type=str, required=True, help="folder for metrics.json, report.html, sounds")
    parser.add_argument("--split", choices=("test", "dev"), help="test, or dev where a corpus has no test clips")
    parser.add_argument("--clips", type=int, default=8, help="at most so many clips")
    parser.add_argument(
        "--systems", choices=(ALL, "models"), default=ALL, help="all, or without what the models are compared with"
    )
    parser.add_argument("--metrics", choices=SETS, default="all", help="all, or without PESQ, DNSMOS and word errors")
    parser.add_argument("--seed", type=int, default=0, help="the noise is drawn from the seed and each clip's name")
    parser.add_argument("--temperature", type=float, default=1.0, help="scales the noise")
    parser.add_argument("--method", type=str, default=AUTO, help="how a teacher samples: auto, fused, cached or naive")
    parser.add_argument("--projection", type=int, default=0, help="steps that bring every system's sound to its mel")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda or auto")
    parser.add_argument("--overwrite", action="store_true", help="replace an evaluation that is in --out")
    return parser


def _same(wav: Tensor) -> System:
    return lambda *_: wav[None]


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _write(path: Path, wav: Tensor, sample_rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    clipped = write_audio(path, wav, sample_rate)
    if clipped:
        tqdm.write(f"{path}: {clipped} of {len(wav)} samples beyond full scale were clipped", file=sys.stderr)


def _require_distinct(what: str, names: Sequence[str]) -> None:
    """Names must stay apart as file names, on any file system."""
    seen: set[str] = set()
    for name in names:
        if file_name(name).lower() in seen:
            raise UserError(f"{what}: found the name {name!r} twice (or one like it), expected each once")
        seen.add(file_name(name).lower())


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _summary(rows: _Rows, heard: Mapping[str, Heard], recording: Mapping[str, Heard]) -> dict[str, Any]:
    """A system's entry in metrics.json."""
    found = {metric: students([row.get(metric) for row in rows.values()]) for metric in METRICS}
    words = [score.words for score in heard.values()]
    found["wer"] = pooled([score.errors for score in heard.values()], words)
    found["wer_gap"] = pooled([score.errors - recording[clip].errors for clip, score in heard.items()], words)
    summary: dict[str, Any] = {
        "clips": rows,
        "mean": {metric: interval.mean for metric, interval in found.items()},
        "ci95": {metric: interval.half_width for metric, interval in found.items()},
    }
    return summary | ({"heard": {clip: score._asdict() for clip, score in heard.items()}} if heard else {})


def _likelihood(model: Teacher | CouplingFlow, clips: Sequence[Clip]) -> dict[str, float | bool | None]:
    """bound: of a flow, whose cells are filled with noise, the likelihood is no more than a bound."""
    bound = isinstance(model, CouplingFlow)
    score = coupling.held_out(model, clips) if isinstance(model, CouplingFlow) else held_out(model, clips)
    values = {"nll": score.nll, "nll_density": score.nll_density, "bits": score.bits, "samples": score.samples}
    return {name: _finite(value) for name, value in values.items()} | {"bound": bound}


def _table(metrics: dict[str, Any]) -> str:
    """The means as plain text, a system a line."""
    width, names = max(len(name) for name in metrics["systems"]), metrics["metrics"]
    lines = [" " * width + "".join(f"  {name}" for name in names)]
    for name, system in metrics["systems"].items():
        cells = [system["mean"][metric] for metric in names]
        shown = ["-" if value is None else f"{value:.3f}" for value in cells]
        lines.append(name.ljust(width) + "".join(f"  {s.rjust(len(m))}" for s, m in zip(shown, names, strict=True)))
        if likelihood := system.get("likelihood"):
            sign = "at most " if likelihood.get("bound") else ""
            said = f"{sign}{likelihood['nll']:.4f} nats, {likelihood['bits']:.4f} bits per sample held out"
            lines.append(f"{'':{width}}  {said}")
        if (bound := system.get("elbo", {}).get("elbo/elbo")) is not None:
            lines.append(f"{'':{width}}  ELBO {bound:.4f} nats per sample held out, of the density")
    return "\n".join(lines)
