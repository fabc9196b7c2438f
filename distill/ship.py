"""`distill-ship`: a run's weights as one small file with a card, such as the package brings along."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse

from distill import models
from distill.cards import OWN, PROJECTED, SECTION, tables
from distill.history import after, history
from distill.markers import check, fill
from distill.metrics import METRICS
from wavenet import __version__, checkpoint, weights
from wavenet.arguments import from_dict, parse_arguments, to_dict
from wavenet.audio import resampled_length
from wavenet.config import AudioConfig, require
from wavenet.data import BUNDLED, open_corpus
from wavenet.errors import DONE, UserError, command
from wavenet.pitch.load import load_pitch
from wavenet.restoration import configuration
from wavenet.run import METRICS as LOG
from wavenet.run import read_metrics
from wavenet.weights import SUFFIX, Card

_COMMANDS = {
    "teacher": "wavenet-train",
    "student": "distill-train",
    "flow": "distill-train-flow",
    "wavevae": "distill-train-wavevae",
    "pitch": "wavenet-train-pitch",
    "phones": "distill-train-phones",
}
_OF_A_RUN = ("name", "corpus", "corpus_name", "licence", "corpus_licence", "teacher", "init", "pitch")
_OF_THE_MACHINE = {"data": ("root", "workers", "digest"), "train": ("device", "threads")}


@command("distill-ship")
def main(argv: Sequence[str] | None = None) -> int:
    """RUN --name NAME --corpus DIR --licence ID: the weights to use of a run, and their card, as one safetensors file.

    The card says what the weights are and come from: configuration, corpus, steps, figures. The same run gives the same
    bytes; weights above 12 MB are refused. WEIGHTS --metrics FILE...: the same weights, new figures.
    --page alone writes the cards of what the package ships into a page.
    """
    arguments = parse_arguments(_parser(), argv)
    page = None if arguments.page is None else Path(arguments.page)
    if page is not None:
        check(page, SECTION)
    require(arguments.run is not None or page is not None, "RUN", arguments.run, "a run folder, or --page alone")
    if arguments.run is not None and weights.is_weights(place := weights.find(arguments.run)):
        _stated_again(place, arguments)
    elif arguments.run is not None:
        for option in ("name", "corpus", "licence"):
            require(arguments[option] is not None, f"--{option}", None, "a value, to ship a run")
        out = _place(arguments, arguments.name)
        stored = checkpoint.load(arguments.run)
        if arguments.pitch is not None:
            stored = with_pitch_network(stored, arguments.pitch, arguments.run)
        card = card_of(
            stored,
            arguments.name,
            Path(arguments.run),
            arguments.corpus,
            arguments.licence,
            corpus_licence=arguments.corpus_licence,
            corpus_name=arguments.corpus_name,
            metrics=arguments.metrics,
            system=arguments.system,
            teacher=arguments.teacher,
            init=arguments.init,
            commands=arguments.commands,
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        weights.write(out, card, checkpoint.weights(stored))
        print(f"{out}: {card.kind}, {out.stat().st_size / 1e6:.2f} MB, step {card.steps}")
        if card.recipe.get("partial"):
            if arguments.init is None:
                note = f"of {arguments.run} alone, which began with other weights; --init FILE{SUFFIX} adds theirs"
            else:
                note = f"that {arguments.init} knows of, which itself began with other weights"
            print(f"{out}: its card counts the steps {note}", file=sys.stderr)
    if page is not None:
        fill(page, tables(weights.shipped()), SECTION)
    return DONE


def _place(arguments: jsonargparse.Namespace, name: str) -> Path:
    out = Path(arguments.out or f"{name}{SUFFIX}")
    require(out.suffix == SUFFIX and not out.is_dir(), "--out", str(out), f"FILE{SUFFIX}")
    require(arguments.overwrite or not out.exists(), "--out", str(out), "no such file yet (or --overwrite)")
    return out


def _stated_again(place: Path, arguments: jsonargparse.Namespace) -> None:
    """The same weights and card, but for the figures of evaluations and for how the commands are told."""
    for option in _OF_A_RUN:
        require(arguments[option] is None, f"--{option}", arguments[option], f"none: the card of {place.name} says it")
    new = arguments.metrics or arguments.commands
    require(new is not None, "--metrics", None, f"metrics.json of an evaluation of {place.name}, or --commands")
    card, tensors = weights.read(place)
    out = _place(arguments, card.name)
    systems = [card.name, place.stem] if arguments.system is None else [arguments.system]
    figures = _evaluations(arguments.metrics, systems)
    commands = list(arguments.commands or card.commands)
    out.parent.mkdir(parents=True, exist_ok=True)
    weights.write(out, dataclasses.replace(card, metrics=dict(card.metrics) | figures, commands=commands), tensors)
    of = "".join(f", figures of {found['clips']} clips ({part})" for part, found in figures.items())
    print(f"{out}: {card.kind}, {out.stat().st_size / 1e6:.2f} MB{of}")


def with_pitch_network(stored: checkpoint.Checkpoint, pitch: str, run: str) -> checkpoint.Checkpoint:
    """A student with another network that reads pitch off the mel: its flows were trained on the recordings' F0.

    Raises UserError for a model that has none, and for a network of another mel.
    """
    own = checkpoint.weights(stored)
    kept = {name: value for name, value in own.items() if not name.startswith("pitch.")}
    require(len(kept) < len(own), "--pitch", pitch, f"none: {run} has no pitch network to replace")
    net = load_pitch(pitch, from_dict(AudioConfig, stored.config["audio"]))
    taken = {f"pitch.{name}": value for name, value in net.state_dict().items()}
    config = to_dict(stored.config) | {"pitch": to_dict(net.config)}
    return dataclasses.replace(stored, config=config, model_state=kept | taken, ema_state=None)


def card_of(
    stored: checkpoint.Checkpoint,
    name: str,
    run: Path,
    corpus: str,
    licence: str,
    *,
    corpus_licence: str | None = None,
    corpus_name: str | None = None,
    metrics: Sequence[str] | None = None,
    system: str | None = None,
    teacher: str | None = None,
    init: str | None = None,
    commands: Sequence[str] | None = None,
) -> Card:
    """The card of a trained model. What can be checked is: corpus, teacher and init must be those of the run.

    init: the weights that the run began with, whose steps and log come before its own. Raises UserError for a run
    without weights, a corpus, teacher or init that is another, and figures that are not there.
    """
    require(name.isidentifier(), "--name", name, "letters, digits and underscores")
    audio = models.load(run).config.audio  # strict: weights that fit their configuration
    record = stored.extra.get("record")
    if not isinstance(record, dict):
        raise UserError(f"{run}: found no record of its training, expected the run folder of a training")
    name_of_teacher = None
    if "teacher" in record:
        name_of_teacher = _teacher(teacher, record, run)
    else:
        require(teacher is None, "--teacher", teacher, f"none for a {stored.kind}")
    recipe: dict[str, Any] = {
        section: {key: value for key, value in values.items() if key not in _OF_THE_MACHINE.get(section, ())}
        for section, values in record.items()
        if section in ("objective", "data", "train")
    }
    begun = None if init is None else _begun(init, record, run)
    if "init" in record:
        recipe["init"] = record["init"]
        if begun is None or begun.recipe.get("partial"):
            recipe["partial"] = True  # steps and log are not those of all the training
    figures = _figures(run, metrics, [name, run.resolve().name] if system is None else [system])
    if log := history(run):
        figures["log"] = log if begun is None else after(begun, log)
    about = _corpus(corpus, audio, record, run) | {"licence": corpus_licence or licence}
    about["name"] = corpus_name or (BUNDLED if corpus == BUNDLED else Path(corpus).resolve().name)
    teachers = [] if name_of_teacher is None else ["--teacher", name_of_teacher]
    trained_by = _COMMANDS.get(stored.kind) if name_of_teacher is None else _COMMANDS["student"]
    if trained_by is None:
        raise UserError(f"{run}: found a {stored.kind}, expected one of {', '.join(_COMMANDS)}")
    first = [] if "init" not in record else ["--init", "WEIGHTS" if begun is None else begun.name]
    usual = [trained_by, "--config", "RECIPE.yaml", *first, *teachers, "--data.root", about["name"]]
    return Card(
        name=name,
        kind=stored.kind,
        config=to_dict(configuration(models.KINDS[stored.kind][0], stored, run)),  # with settings newer than the run
        features=weights.features(audio),
        corpus=about,
        licence=licence,
        steps=stored.step + (0 if begun is None else begun.steps),
        metrics=figures,
        recipe=to_dict(recipe),
        commands=list(commands or [" ".join(usual)]),
        teacher=name_of_teacher,
        project=__version__,
        digest=weights.digest(checkpoint.weights(stored)),
    )


def _teacher(path: str | None, record: dict[str, Any], run: Path) -> str:
    if path is None:
        raise UserError("--teacher: found none, expected the teacher of this student: shipped weights, a file or a run")
    found = checkpoint.fingerprint(models.load(path))
    if found != record.get("teacher"):
        raise UserError(f"--teacher: found {path} of digest {found}, expected {record.get('teacher')}, that of {run}")
    return weights.find(path).stem


def _begun(path: str, record: dict[str, Any], run: Path) -> Card:
    place = weights.find(path)
    require(weights.is_weights(place), "--init", path, f"weights in {SUFFIX}, or a shipped name")
    card = weights.read_card(place)
    if card.digest != record.get("init"):
        raise UserError(f"--init: found {path} of digest {card.digest}, expected {record.get('init')}, that of {run}")
    return card


def _corpus(root: str, audio: AudioConfig, record: dict[str, Any], run: Path) -> dict[str, Any]:
    corpus = open_corpus(root, audio)
    expected = record.get("data", {}).get("digest")
    if corpus.digest != expected:
        raise UserError(f"--corpus: found {root} of digest {corpus.digest}, expected {expected}, that of {run}")
    seconds = sum(resampled_length(clip.frames, clip.sample_rate, audio.sample_rate) for clip in corpus.train)
    splits = {"train": len(corpus.train), "dev": len(corpus.dev), "test": len(corpus.test)}
    return {"hours": round(seconds / audio.sample_rate / 3600, 4), "splits": splits}


def _figures(run: Path, paths: Sequence[str] | None, systems: Sequence[str]) -> dict[str, Any]:
    figures = _evaluations(paths, systems)
    if run.is_dir() and (run / LOG).is_file():
        judged = [line for line in read_metrics(run) if any(name.startswith("validation/") for name in line)]
        if judged:
            values = {name.removeprefix("validation/"): value for name, value in judged[-1].items()}
            figures["validation"] = {name: value for name, value in values.items() if not name.startswith("health/")}
    return figures


def _evaluations(paths: Sequence[str] | None, systems: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{"evaluation": of the model's own samples, "projected": of those brought to their mel}, what there is of them."""
    found: dict[str, dict[str, Any]] = {}
    for path in paths or []:
        part, figures = _evaluation(Path(path), systems)
        which = "of projected samples" if part == PROJECTED else "of the model's own samples"
        require(part not in found, "--metrics", path, f"one evaluation {which}")
        found[part] = figures
    return found


def _evaluation(path: Path, systems: Sequence[str]) -> tuple[str, dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        known, clips = found["systems"], len(found["clips"])
        chosen = next((name for name in systems if name in known), None)
        means = {} if chosen is None else known[chosen]["mean"]
    except FileNotFoundError:
        raise UserError(f"{path}: found no such file, expected metrics.json of distill-evaluate") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: found something else, expected metrics.json of distill-evaluate") from None
    if chosen is None:
        listed = " or ".join(repr(name) for name in dict.fromkeys(systems))
        raise UserError(f"--system: found no {listed} in {path}, expected one of {', '.join(map(repr, known))}")
    figures = {"clips": clips} | {name: round(means[name], 6) for name in METRICS if means.get(name) is not None}
    steps = found.get("projection", 0)
    return (PROJECTED, {"steps": steps} | figures) if steps else (OWN, figures)


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="distill-ship", description=main.__doc__)
    parser.add_argument("run", type=str, nargs="?", help="a finished run folder; or weights, with --metrics")
    parser.add_argument("--name", type=str, help="what the weights are called from now on")
    parser.add_argument("--out", type=str, help=f"the file (default: NAME{SUFFIX})")
    parser.add_argument("--corpus", type=str, help="the corpus folder that it was trained on; checked")
    parser.add_argument("--corpus_name", "--corpus-name", type=str, help="its name (default: the folder's)")
    parser.add_argument("--licence", type=str, help="of the weights, e.g. CC0-1.0")
    parser.add_argument("--corpus_licence", "--corpus-licence", type=str, help="of the corpus (default: the same)")
    own = "metrics.json of an evaluation that has it: of its own samples, of projected ones, or both"
    parser.add_argument("--metrics", type=str, nargs="+", help=own)
    parser.add_argument("--system", type=str, help="its name there (default: the name, or the run folder's)")
    parser.add_argument("--teacher", type=str, help="of a student: shipped weights, a file or a run; checked")
    parser.add_argument("--init", type=str, help="weights that the run began with: their steps and log come first")
    parser.add_argument("--pitch", type=str, help="a run of wavenet-train-pitch in place of a student's own network")
    parser.add_argument("--commands", type=str, nargs="+", help="command lines that trained it, as they are shown")
    parser.add_argument("--page", type=str, help="a page with markers to write the shipped cards into: docs/weights.md")
    parser.add_argument("--overwrite", action="store_true", help="replace the file")
    return parser
