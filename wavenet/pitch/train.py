"""`wavenet-train-pitch`: the network mel -> F0 and voicing, from the tracker's labels of recordings."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jsonargparse
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from wavenet import checkpoint
from wavenet.arguments import from_dict, parse_arguments, to_dict
from wavenet.config import DataConfig, PitchConfig, PitchDataConfig, TrainConfig
from wavenet.data import Batch, Corpus, CropDataset, load_clip, open_corpus
from wavenet.errors import DONE, UserError, command
from wavenet.manifest import Clip
from wavenet.pitch.accuracy import pitch_errors
from wavenet.pitch.labels import LABELS, Labels, PitchedCrops, label
from wavenet.pitch.net import PitchNet
from wavenet.pitch.speed import Played
from wavenet.splits import SPLITS
from wavenet.statistics import corpus_statistics
from wavenet.train import open_training_corpus, record_of
from wavenet.trainer import Task, Validation, train

KIND = "pitch"
ERRORS = "pitch.json"


@command("wavenet-train-pitch")
def main(argv: Sequence[str] | None = None) -> int:
    """Train: --config RECIPE.yaml --data.root DIR --out RUN; the same command resumes. --evaluate only measures."""
    parser = jsonargparse.ArgumentParser(prog="wavenet-train-pitch", description=main.__doc__)
    parser.add_argument("--config", action="config", help="a recipe, e.g. configs/pitch.yaml")
    parser.add_argument("--model", type=PitchConfig, default=PitchConfig())
    parser.add_argument("--data", type=PitchDataConfig, default=PitchDataConfig())
    parser.add_argument("--train", type=TrainConfig, default=TrainConfig())
    parser.add_argument("--out", type=str, required=True, help="run folder: checkpoint, configuration, labels, logs")
    parser.add_argument("--evaluate", action="store_true", help="measure the run in --out as it stands; train nothing")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=["dev"], help="what is measured in the end")
    arguments = parse_arguments(parser, argv)
    run = Path(arguments.out)
    if not arguments.evaluate:
        status = train_pitch(arguments.model, arguments.data, arguments.train, run)
        if status != DONE:
            return status
    return evaluate(run, arguments.data, arguments.splits)


def train_pitch(model_config: PitchConfig, data: PitchDataConfig, config: TrainConfig, run: Path) -> int:
    """Train, or resume, the pitch network of a run folder. Returns the exit status."""
    audio = model_config.audio
    corpus = open_training_corpus(data, audio)
    crops = CropDataset(corpus.train, audio, config.crop_length, config.batch_size, config.seed)
    for note in crops.notes:
        print(note, file=sys.stderr)
    record = record_of(model_config, data, corpus, config)

    @functools.cache
    def labels() -> Labels:
        return label([*corpus.train, *corpus.dev], audio, run / LABELS, data.workers)

    torch.manual_seed(config.seed)
    model = PitchNet(model_config)
    if not (run / checkpoint.FILE_NAME).exists():
        _, mean, std = corpus_statistics(corpus.train, audio, 0.0)
        model.set_statistics(mean, std)

    def validate(average: nn.Module) -> Validation:
        assert isinstance(average, PitchNet)
        return Validation(measure(average, corpus.dev[: data.validation_clips], labels()), {}, audio.sample_rate)

    def batches() -> Dataset[Batch]:
        pitched = PitchedCrops(crops, labels())
        return Played(pitched, *data.speeds) if data.speeds else pitched

    task = Task(KIND, model, to_dict(model_config), pitch_loss, validate, record=record)
    return train(task, config, batches, data.workers, run)


def pitch_loss(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """Cross entropies in nats per frame, of the F0 classes over voiced frames and of voicing over all; and cents.

    The mel is shifted by one level for each clip and jittered: a microphone's gain says nothing about pitch.
    """
    assert isinstance(model, PitchNet)
    assert batch.pitch is not None
    f0, voiced = batch.pitch
    config, mel = model.config, batch.mel
    level = torch.randn(len(mel), 1, 1, generator=generator).to(mel) * config.level_jitter
    jitter = torch.randn(mel.shape, generator=generator).to(mel) * config.mel_jitter
    estimate = model.estimate(model.standardised(mel + level) + jitter)
    share = voiced / voiced.sum().clamp(min=1)
    entropy = -(model.targets(f0) * estimate.f0_logits.log_softmax(1)).sum(1)
    f0_loss = (entropy * share).sum()
    voicing_loss = F.binary_cross_entropy_with_logits(estimate.voicing_logit, voiced)
    cents = 1200 * ((estimate.log_f0.detach() - f0.log()).abs() * share).sum() / torch.tensor(2.0).log()
    return {
        "loss": f0_loss + voicing_loss,
        "pitch/f0_cross_entropy": f0_loss.detach(),
        "pitch/voicing_cross_entropy": voicing_loss.detach(),
        "pitch/mean_cents": cents,
    }


@torch.no_grad()
def measure(model: PitchNet, clips: Sequence[Clip], labels: Labels) -> dict[str, float]:
    """Errors of the network's pitch on whole clips against their labels, as `pitch_errors` names them."""
    device, found = model.mean.device, []
    for clip in clips:
        wav = load_clip(clip, model.config.audio)[None].to(device)
        pitch = model.tracked(model.log_mel(wav))
        found.append(type(pitch)(*(value.cpu() for value in pitch)))
    return pitch_errors(found, [labels.pitch(clip) for clip in clips])


def evaluate(run: Path, data: DataConfig, splits: Sequence[str]) -> int:
    """Measure a run on splits of a corpus, which need not be its own: printed, and added to RUN/pitch.json."""
    stored = checkpoint.load(run)
    if stored.kind != KIND:
        raise UserError(f"{run}: found a {stored.kind}, expected a pitch network")
    model = PitchNet(from_dict(PitchConfig, stored.config)).eval()
    model.load_state_dict(checkpoint.weights(stored))
    corpus = open_corpus(data.root, model.config.audio)
    results = _results(run)
    for split in splits:
        clips: list[Clip] = getattr(corpus, split)
        if not clips:
            raise UserError(f"{data.root}: found no {split} clips, expected at least one")
        errors = measure(model, clips, label(clips, model.config.audio, run / LABELS, data.workers))
        results[f"{_name(corpus)}/{split}"] = {"step": stored.step, "clips": len(clips), **errors}
        print(f"{_name(corpus)}/{split}: {_sentence(errors, len(clips))}")
    temporary = run / f".{ERRORS}.tmp"
    temporary.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    temporary.replace(run / ERRORS)
    return DONE


def _name(corpus: Corpus) -> str:
    return Path(corpus.root).resolve().name if Path(corpus.root).exists() else corpus.root


def _sentence(errors: dict[str, float], clips: int) -> str:
    return (
        f"F0 {errors['median_cents']:.1f} cents median, {errors['p90_cents']:.1f} 90 %, {errors['rms_cents']:.0f} rms, "
        f"{errors['within_3_percent']:.1%} within 3 %, {errors['gross']:.2%} off by more than 10 %; "
        f"voicing error {errors['voicing_error']:.1%} ({errors['miss']:.1%} missed, "
        f"{errors['false_alarm']:.1%} false alarms); {clips} clips, {errors['frames']:.0f} frames"
    )


def _results(run: Path) -> dict[str, dict[str, float]]:
    path = run / ERRORS
    if not path.is_file():
        return {}
    try:
        found: dict[str, dict[str, float]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path}: found no JSON, expected errors of an earlier evaluation (remove it)") from None
    return found
