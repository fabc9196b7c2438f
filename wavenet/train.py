"""`wavenet-train`: a teacher from recordings, by maximum likelihood; or another kind of model, by its own training."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from torch import nn

from wavenet import checkpoint
from wavenet.adaptation import Initial
from wavenet.arguments import from_dict, parse_arguments, to_dict
from wavenet.config import AudioConfig, DataConfig, TeacherConfig, TrainConfig
from wavenet.data import Clip, Corpus, CropDataset, load_clip, open_corpus
from wavenet.errors import UserError, command
from wavenet.kinds import TEACHER, kinds, stated_kind, training_of
from wavenet.likelihood import HeldOut, Speaking, clip_speaker, held_out, likelihood_loss
from wavenet.pitch.load import load_pitch, with_pitch
from wavenet.statistics import corpus_statistics
from wavenet.teacher import Teacher
from wavenet.trainer import Task, Validation, train
from wavenet.upsample import Upsample


@command("wavenet-train")
def main(argv: Sequence[str] | None = None) -> int:
    """Train a teacher: --config RECIPE.yaml --data.root DIR --out RUN. The same command resumes.

    A recipe that states another kind of model is that kind's, with its options: --kind KIND --help.
    """
    kind = stated_kind(argv, TEACHER)
    if kind != TEACHER:
        return training_of(kind)(argv)
    parser = jsonargparse.ArgumentParser(prog="wavenet-train", description=main.__doc__)
    parser.add_argument("--config", action="config", help="a recipe, e.g. configs/teacher_mol.yaml")
    parser.add_argument("--kind", choices=(TEACHER,), default=TEACHER, help=f"of model: {', '.join(kinds())}")
    parser.add_argument("--model", type=TeacherConfig, default=TeacherConfig())
    parser.add_argument("--data", type=DataConfig, default=DataConfig())
    parser.add_argument("--train", type=TrainConfig, default=TrainConfig())
    parser.add_argument("--pitch", type=str, help="a run of wavenet-train-pitch, for a teacher with model.source")
    parser.add_argument("--init", type=str, help="begin with these weights: shipped name, file or run of a teacher")
    parser.add_argument("--out", type=str, required=True, help="run folder: checkpoint, configuration, logs")
    found = parse_arguments(parser, argv)
    return train_teacher(found.model, found.data, found.train, Path(found.out), found.pitch, found.init)


def train_teacher(
    model_config: TeacherConfig,
    data: DataConfig,
    config: TrainConfig,
    run: Path,
    pitch: str | None = None,
    init: str | None = None,
) -> int:
    """Train, or resume, the teacher of a run folder. Returns the exit status.

    pitch: the network that model.source takes F0 from. init: trained weights that a new run begins with, at step 0; a
    pitch network is among them where the model has one.
    """
    initial = None if init is None else Initial(init, "teacher", run)
    net = None
    if initial is not None and pitch is not None:
        raise UserError(f"--pitch: found {pitch}, expected none with --init, which brings its own")
    if model_config.source:
        if pitch is None and initial is None:
            raise UserError("--pitch: found none, expected a run of wavenet-train-pitch, for model.source needs F0")
        net = initial.pitch() if initial is not None else load_pitch(str(pitch), model_config.audio)
        model_config = dataclasses.replace(model_config, pitch=net.config)
    elif pitch is not None:
        raise UserError(f"--pitch: found {pitch}, expected none for a teacher without model.source")
    corpus = open_training_corpus(data, model_config.audio)
    torch.manual_seed(config.seed)
    model_config, model = build_measured(Teacher, "teacher", model_config, corpus, run)
    if model.pitch is not None and net is not None:
        model.pitch.load_state_dict(net.state_dict())
    if initial is not None and not (run / checkpoint.FILE_NAME).exists():
        print(initial.into(model), file=sys.stderr)
    crops = training_crops(corpus, model_config, config)

    def validate(average: nn.Module) -> Validation:
        assert isinstance(average, Teacher)
        return validate_likelihood(average, held_out, corpus, data.validation_clips, config.sample_seconds)

    task = Task(
        kind="teacher",
        model=model,
        model_config=to_dict(model_config),
        loss=likelihood_loss,
        validate=validate,
        progress="nll",
        record=record_of(model_config, data, corpus, config, initial, pitch=net),
    )
    batches = crops if net is None else functools.partial(with_pitch, crops, run, data.workers, pitch)
    return train(task, config, batches, data.workers, run)


def open_training_corpus(data: DataConfig, audio: AudioConfig) -> Corpus:
    """The corpus, its notes said, checked for what training needs: clips to train and to validate on."""
    corpus = open_corpus(data.root, audio)
    for note in corpus.notes:
        print(note, file=sys.stderr)
    for split in ("train", "dev"):
        if not getattr(corpus, split):
            raise UserError(f"{data.root}: found no {split} clips, expected at least one (see wavenet-prepare --help)")
    return corpus


def training_crops(corpus: Corpus, model_config: Any, config: TrainConfig) -> CropDataset:
    """What a training step sees, its notes said."""
    crops = CropDataset(
        corpus.train, model_config.audio, config.crop_length, config.batch_size, config.seed, model_config.speaker_names
    )
    for note in crops.notes:
        print(note, file=sys.stderr)
    return crops


def record_of(
    model_config: Any,
    data: DataConfig,
    corpus: Corpus,
    config: TrainConfig,
    initial: Initial | None = None,
    objective: Any = None,
    **networks: nn.Module | None,
) -> dict[str, Any]:
    """What a run remembers, and is resumed with: settings, recordings, and the weights of what else it learns from."""
    record: dict[str, Any] = {
        "model": to_dict(model_config),
        "data": to_dict(data) | {"digest": corpus.digest},
        "train": to_dict(config),
    }
    record |= {} if objective is None else {"objective": to_dict(objective)}
    record |= {} if initial is None else {"init": initial.digest}
    return record | {name: checkpoint.fingerprint(net) for name, net in networks.items() if net is not None}


def build_measured(model: Callable[[Any], Any], kind: str, config: Any, corpus: Corpus, run: Path) -> tuple[Any, Any]:
    """Configuration and a fresh model(config), level and mel statistics measured; a run that exists keeps its level."""
    stored = run / checkpoint.FILE_NAME
    if stored.exists():
        found = checkpoint.load(stored)
        if found.kind == kind:
            known = from_dict(type(config), found.config)
            gain = known.gain if config.gain is None else config.gain
            config = dataclasses.replace(config, gain=gain, speaker_names=known.speaker_names)
        check_speakers(config, corpus)
        return config, model(config)
    if config.speakers and not config.speaker_names:
        config = dataclasses.replace(config, speaker_names=corpus.speakers)
    check_speakers(config, corpus)
    gain, mean, std = corpus_statistics(corpus.train, config.audio, config.pre_emphasis)
    if config.gain is None:
        config = dataclasses.replace(config, gain=float(f"{gain:.6g}"))
    fresh = model(config)
    for network in fresh.modules():
        if isinstance(network, Upsample):
            network.set_statistics(mean, std)
    return config, fresh


def check_speakers(config: Speaking, corpus: Corpus) -> None:
    """A model of several speakers keeps their names, so that a voice stays itself on any corpus; else UserError."""
    if not config.speakers:
        return
    if len(config.speaker_names) > config.speakers:
        raise UserError(f"model.speakers: found {config.speakers}, expected at least {len(config.speaker_names)}")
    for clip in (*corpus.train, *corpus.dev):
        clip_speaker(clip, config)


def validate_likelihood(
    model: Any,
    likelihood: Callable[[Any, Sequence[Clip]], HeldOut],
    corpus: Corpus,
    clips: int,
    sample_seconds: float,
) -> Validation:
    """Held-out likelihood, and a recording next to what the model itself says on the same mel."""
    chosen = corpus.dev[:clips]
    score = likelihood(model, chosen)
    audio, device = model.config.audio, next(model.parameters()).device
    frames = max(1, round(sample_seconds * audio.sample_rate / audio.hop_length))
    wav = load_clip(chosen[0], audio)[None].to(device)
    middle = max(0, (wav.shape[1] // audio.hop_length - frames) // 2)
    mel = model.log_mel(wav)[:, :, middle : middle + frames]
    recording = wav[0, middle * audio.hop_length :][: mel.shape[2] * audio.hop_length]
    speaker = clip_speaker(chosen[0], model.config, device)
    sample = model.sample(mel, generator=torch.Generator().manual_seed(0), speaker=speaker)[0]
    scalars = {"nll": score.nll, "bits": score.bits, "nll_density": score.nll_density}
    return Validation(scalars, {"recording": recording, "sample": sample}, audio.sample_rate)
