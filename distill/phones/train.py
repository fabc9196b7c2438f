"""`distill-train-phones`: a phone classifier from recordings and their texts, for the perceptual loss."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.phones.alignment import PHONES, Segment, align_corpus, cache_folder
from distill.phones.classifier import PhoneClassifier, PhoneConfig
from distill.phones.data import PhoneBatch, PhoneCrops, clip_phones
from wavenet import checkpoint
from wavenet.arguments import from_dict, parse_arguments, to_dict
from wavenet.config import DataConfig, TrainConfig
from wavenet.data import Corpus, CropDataset, load_clip
from wavenet.errors import DONE, UserError, command
from wavenet.manifest import Clip
from wavenet.run import Run
from wavenet.statistics import corpus_statistics
from wavenet.train import open_training_corpus, record_of
from wavenet.trainer import Task, Validation, train

KIND = "phones"
REPORT = "phones.json"
_CONFUSIONS = 3


@command("distill-train-phones")
def main(argv: Sequence[str] | None = None) -> int:
    """Train a phone classifier: --config RECIPE.yaml --data.root DIR --out RUN. The same command resumes."""
    parser = jsonargparse.ArgumentParser(prog="distill-train-phones", description=main.__doc__)
    parser.add_argument("--config", action="config", help="a recipe, e.g. configs/phones.yaml")
    parser.add_argument("--model", type=PhoneConfig, default=PhoneConfig())
    parser.add_argument("--data", type=DataConfig, default=DataConfig())
    parser.add_argument("--train", type=TrainConfig, default=TrainConfig())
    parser.add_argument(
        "--out", type=str, required=True, help="run folder: checkpoint, configuration, logs, phones.json"
    )
    parser.add_argument("--alignments", type=str, default="", help="folder that keeps alignments (the user's cache)")
    arguments = parse_arguments(parser, argv)
    folder = Path(arguments.alignments) if arguments.alignments else cache_folder()
    return train_phones(arguments.model, arguments.data, arguments.train, Path(arguments.out), folder)


def train_phones(config: PhoneConfig, data: DataConfig, training: TrainConfig, run: Path, alignments: Path) -> int:
    """Align, train or resume, and measure on held-out clips: printed, and RUN/phones.json. Returns the exit status."""
    corpus = open_training_corpus(data, config.audio)
    config = _with_gain(config, corpus, run)
    record = record_of(config, data, corpus, training)
    Run(run, KIND, record).close()  # a run of other settings is refused before the minutes of aligning
    aligned, notes = align_corpus(corpus, alignments)
    train_clips, dev, test = (
        [c for c in split if c.id in aligned] for split in (corpus.train, corpus.dev, corpus.test)
    )
    for name, clips in (("train", train_clips), ("dev", dev)):
        if not clips:
            raise UserError(f"{data.root}: found no {name} clip that fits its text, expected at least one")
    crops = CropDataset(train_clips, config.audio, training.crop_length, training.batch_size, training.seed)
    for note in notes + crops.notes:
        print(note, file=sys.stderr)
    torch.manual_seed(training.seed)

    def validate(average: nn.Module) -> Validation:
        assert isinstance(average, PhoneClassifier)
        return Validation(
            summary(confusion(average, dev[: data.validation_clips], aligned)), {}, config.audio.sample_rate
        )

    task = Task(KIND, PhoneClassifier(config), to_dict(config), phone_loss, validate, "", record)
    status = train(task, training, PhoneCrops(crops, aligned), data.workers, run)
    if status == DONE:
        _report(run, {"dev": dev, "test": test}, aligned)
    return status


def phone_loss(model: nn.Module, batch: PhoneBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Cross entropy in nats per frame, {"loss", "phones/accuracy"}, under random level and white noise.

    Level: each crop times exp(level_jitter N(0, 1)). Noise: snr_range[0] to [1] dB below the crop, uniformly.
    """
    assert isinstance(model, PhoneClassifier)
    wav, config = batch.wav, model.config
    level = torch.randn(len(wav), 1, generator=generator).to(wav) * config.level_jitter
    low, high = config.snr_range
    decibels = low + (high - low) * torch.rand(len(wav), 1, generator=generator).to(wav)
    noise = torch.randn(wav.shape, generator=generator).to(wav)
    rms = wav.square().mean(1, keepdim=True).sqrt()
    logits = model(level.exp() * (wav + noise * rms * 10 ** (-decibels / 20))).logits
    accuracy = (logits.detach().argmax(1) == batch.phones).float().mean()
    return {"loss": F.cross_entropy(logits.float(), batch.phones), "phones/accuracy": accuracy}


@torch.no_grad()
def confusion(model: PhoneClassifier, clips: Sequence[Clip], alignments: Mapping[str, Sequence[Segment]]) -> Tensor:
    """Frames of whole clips by what they are (rows) and what the classifier says (columns), (P, P) int64."""
    device = next(model.parameters()).device
    counts = torch.zeros(len(PHONES) ** 2, dtype=torch.int64)
    for clip in clips:
        said = model(load_clip(clip, model.config.audio)[None].to(device)).logits[0].argmax(0).cpu()
        is_phone = clip_phones(clip, alignments, model.config.audio)
        counts += torch.bincount(is_phone * len(PHONES) + said, minlength=len(counts))
    return counts.unflatten(0, (len(PHONES), len(PHONES)))


def summary(counts: Tensor) -> dict[str, float]:
    """frames, accuracy, and majority_rate: the accuracy of always saying the commonest phone of these frames."""
    frames = float(counts.sum())
    return {
        "frames": frames,
        "accuracy": float(counts.trace()) / frames,
        "majority_rate": float(counts.sum(1).max()) / frames,
    }


def by_phone(counts: Tensor) -> dict[str, dict[str, Any]]:
    """For every phone that occurs: frames, share recognised, and the phones that it is most often taken for."""
    found: dict[str, dict[str, Any]] = {}
    for place, row in enumerate(counts):
        frames = int(row.sum())
        if frames:
            order = row.argsort(descending=True, stable=True).tolist()
            others = [other for other in order if other != place and row[other] > 0][:_CONFUSIONS]
            taken_for = {PHONES[other]: round(int(row[other]) / frames, 4) for other in others}
            recall = round(int(row[place]) / frames, 4)
            found[PHONES[place]] = {"frames": frames, "recall": recall, "taken_for": taken_for}
    return found


def _with_gain(config: PhoneConfig, corpus: Corpus, run: Path) -> PhoneConfig:
    """The configuration with its level: as given, as the run has it, or measured on the training clips."""
    if config.gain is not None:
        return config
    stored = run / checkpoint.FILE_NAME
    if stored.exists() and (found := checkpoint.load(stored)).kind == KIND:
        return dataclasses.replace(config, gain=from_dict(PhoneConfig, found.config).gain)
    gain, _, _ = corpus_statistics(corpus.train, config.audio, config.pre_emphasis)
    return dataclasses.replace(config, gain=float(f"{gain:.6g}"))


def _report(run: Path, splits: Mapping[str, Sequence[Clip]], alignments: Mapping[str, Sequence[Segment]]) -> None:
    stored = checkpoint.load(run)
    model = PhoneClassifier(from_dict(PhoneConfig, stored.config)).eval()
    model.load_state_dict(checkpoint.weights(stored))
    report: dict[str, Any] = {"step": stored.step, "phones": list(PHONES)}
    for split, clips in splits.items():
        if not clips:
            continue
        counts = confusion(model, clips, alignments)
        found = summary(counts)
        commonest = PHONES[int(counts.sum(1).argmax())]
        print(
            f"{split}: {found['accuracy']:.1%} of {found['frames']:.0f} frames right in {len(clips)} held-out clips; "
            f"always saying {commonest}: {found['majority_rate']:.1%}"
        )
        detail = {"by_phone": by_phone(counts), "confusion": counts.tolist()}
        report[split] = {"clips": len(clips), **found, "commonest": commonest, **detail}
    temporary = run / f".{REPORT}.tmp"
    temporary.write_text(json.dumps(report) + "\n", encoding="utf-8")
    temporary.replace(run / REPORT)
