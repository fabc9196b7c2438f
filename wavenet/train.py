"""`wavenet-train`: a teacher from recordings, by maximum likelihood."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import jsonargparse
import torch
from torch import nn

from wavenet import checkpoint
from wavenet.config import AudioConfig, DataConfig, TeacherConfig, TrainConfig, from_dict, parse_arguments, to_dict
from wavenet.data import Corpus, CropDataset, load_clip, open_corpus
from wavenet.errors import UserError, command
from wavenet.likelihood import held_out, likelihood_loss, speaker_index
from wavenet.statistics import corpus_statistics
from wavenet.teacher import Teacher
from wavenet.trainer import Task, Validation, train


@command("wavenet-train")
def main(argv: Sequence[str] | None = None) -> int:
    """Train a teacher: --config RECIPE.yaml --data.root DIR --out RUN. The same command resumes."""
    parser = jsonargparse.ArgumentParser(prog="wavenet-train", description=main.__doc__)
    parser.add_argument("--config", action="config", help="a recipe, e.g. configs/teacher_mol.yaml")
    parser.add_argument("--model", type=TeacherConfig, default=TeacherConfig())
    parser.add_argument("--data", type=DataConfig, default=DataConfig())
    parser.add_argument("--train", type=TrainConfig, default=TrainConfig())
    parser.add_argument("--out", type=str, required=True, help="run folder: checkpoint, configuration, logs")
    arguments = parse_arguments(parser, argv)
    return train_teacher(arguments.model, arguments.data, arguments.train, Path(arguments.out))


def train_teacher(model_config: TeacherConfig, data: DataConfig, config: TrainConfig, run: Path) -> int:
    """Train, or resume, the teacher of a run folder. Returns the exit status."""
    corpus = open_training_corpus(data, model_config.audio, model_config.speakers)
    torch.manual_seed(config.seed)
    model_config, model = build_teacher(model_config, corpus, run)
    batches = CropDataset(
        corpus.train, model_config.audio, config.crop_length, config.batch_size, config.seed, corpus.speakers
    )
    for note in batches.notes:
        print(note, file=sys.stderr)

    def validate(average: nn.Module) -> Validation:
        assert isinstance(average, Teacher)
        return validate_teacher(average, corpus, data.validation_clips, config.sample_seconds)

    task = Task(
        kind="teacher",
        model=model,
        model_config=to_dict(model_config),
        loss=likelihood_loss,
        validate=validate,
        progress="nll",
        record={"model": to_dict(model_config), "data": to_dict(data), "train": to_dict(config)},
    )
    return train(task, config, batches, data.workers, run)


def open_training_corpus(data: DataConfig, audio: AudioConfig, speakers: int) -> Corpus:
    """The corpus, its notes said, checked for what training needs: clips of both splits, speakers."""
    corpus = open_corpus(data.root, audio)
    for note in corpus.notes:
        print(note, file=sys.stderr)
    for split in ("train", "dev"):
        if not getattr(corpus, split):
            raise UserError(f"{data.root}: found no {split} clips, expected at least one (see wavenet-prepare --help)")
    if speakers and speakers < len(corpus.speakers):
        raise UserError(f"model.speakers: found {speakers}, expected at least the corpus's {len(corpus.speakers)}")
    return corpus


def build_teacher(config: TeacherConfig, corpus: Corpus, run: Path) -> tuple[TeacherConfig, Teacher]:
    """A fresh teacher with level and mel statistics measured; for a run that exists, with the level stored there."""
    stored = run / "checkpoint.pt"
    if config.gain is None and stored.exists():
        found = checkpoint.load(stored)
        if found.kind == "teacher":
            config = dataclasses.replace(config, gain=from_dict(TeacherConfig, found.config).gain)
        return config, Teacher(config)
    gain, mean, std = corpus_statistics(corpus.train, config.audio, config.pre_emphasis)
    if config.gain is None:
        config = dataclasses.replace(config, gain=float(f"{gain:.6g}"))
    model = Teacher(config)
    model.upsample.set_statistics(mean, std)
    return config, model


def validate_teacher(model: Teacher, corpus: Corpus, clips: int, sample_seconds: float) -> Validation:
    """Held-out likelihood, and a recording next to what the model itself says on the same mel."""
    chosen = corpus.dev[:clips]
    score = held_out(model, chosen, corpus.speakers)
    audio, device = model.config.audio, next(model.parameters()).device
    frames = max(1, round(sample_seconds * audio.sample_rate / audio.hop_length))
    wav = load_clip(chosen[0], audio)[None].to(device)
    middle = max(0, (wav.shape[1] // audio.hop_length - frames) // 2)
    mel = model.log_mel(wav)[:, :, middle : middle + frames]
    recording = wav[0, middle * audio.hop_length :][: mel.shape[2] * audio.hop_length]
    speaker = speaker_index(chosen[0], corpus.speakers, device) if model.config.speakers else None
    sample = model.sample(mel, generator=torch.Generator().manual_seed(0), speaker=speaker)[0]
    scalars = {"nll": score.nll, "bits": score.bits, "nll_density": score.nll_density}
    return Validation(scalars, {"recording": recording, "sample": sample}, audio.sample_rate)
