"""The distillation step: the student's sample under the frozen teacher, and the same on held-out clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from distill.contrastive import another_clip, check_rows, half_a_clip_later
from distill.coupling.model import CouplingFlow, Draw
from distill.diagnoses import HealthConfig
from distill.health import Health
from distill.objective import Objective, ObjectiveConfig
from distill.phones.classifier import PhoneClassifier
from distill.student import Sample, Student
from distill.vitals import mean_signs, noise_signs, vital_signs
from wavenet.config import AudioConfig, require
from wavenet.data import Batch, Clip, Corpus, clip_length, load_clip
from wavenet.errors import UserError
from wavenet.likelihood import clip_speaker, first_scored, random_offset
from wavenet.pitch.tracker import F0Track, track
from wavenet.stopwatch import part
from wavenet.teacher import Teacher
from wavenet.trainer import Validation

_SECONDS = 4.0


@dataclasses.dataclass
class Distillation:
    """loss(student, batch, generator): sample, one teacher pass on that sample, the named terms.

    The teacher is frozen and in eval mode, yet the gradient flows through it to the student's sample. It never sees the
    recording here: only the student's own x. batch_size: rows of a training batch, where known, to refuse too few for
    the contrastive term at once; phones: the frozen classifier of the perceptual term, at the teacher's sample rate.
    """

    teacher: Teacher
    config: ObjectiveConfig
    crop_length: int
    batch_size: int | None = None
    phones: PhoneClassifier | None = None

    def __post_init__(self) -> None:
        self.teacher.eval().requires_grad_(False)
        self._floor = self.teacher.least_log_scale
        self._tracks: dict[Path, F0Track] = {}
        self.start = first_scored(self.teacher.receptive_field, self.crop_length)
        scored = self.crop_length - self.start
        for setting, size in self.config.windows(self.teacher.config.audio).items():
            require(
                size <= scored, setting, size, f"at most {scored}, what train.crop_length {self.crop_length} scores"
            )
        if "contrastive" in self.config.weights and self.batch_size is not None:
            check_rows(self.batch_size)
        self._check_phones()

    def objective(self, student: Student | CouplingFlow, start: int) -> Objective:
        """The terms, with the first `start` samples left out; spectra are of the signal that the flows make."""
        emphasis = student.config.pre_emphasis
        return Objective(self.config, emphasis, student.gain, self._floor, start, self.phones, student.log_mel)

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """{"loss", "loss/<term>", "kl/...", "stft/..."}: scalars. Raises UserError for one row under contrastive."""
        assert isinstance(model, Student | CouplingFlow)
        return self._pass(model, batch, generator, self._first(model, batch.wav.shape[1]))[0]

    def monitor(self, config: HealthConfig) -> Health:
        """What judges the run of this distillation."""
        return Health(config, self._floor)

    def _pass(
        self, student: Student | CouplingFlow, batch: Batch, generator: torch.Generator | None, start: int
    ) -> tuple[dict[str, Tensor], Sample | Draw, Distribution | None]:
        """The terms, the student's sample, and the teacher's law on it, from `start` on, where a term needs one."""
        noise = student.noise(batch.mel, generator=generator)
        # One voice for both: the teacher's source, where it has one, is in step with the student's.
        pitch, offset = batch.pitch, random_offset(batch, generator) if student.training else None
        with part("student"):
            voice = (pitch, offset) if isinstance(student, Student) else ()
            sample = student(noise, batch.mel, batch.speaker, *voice)
        objective = self.objective(student, start)
        judged = other = None
        if objective.needs_teacher:
            with part("teacher"):
                judged = self.teacher(sample.wav, batch.mel, batch.speaker, pitch, offset, start)
        if objective.needs_other:
            # Held-out clips come one by one.
            c2 = another_clip(batch) if student.training or len(batch.mel) > 1 else half_a_clip_later(batch)
            with part("contrastive"):
                other = self.teacher(sample.wav, c2.mel, c2.speaker, c2.pitch, offset, start)
        return objective(sample, judged, batch.wav, generator, other), sample, judged

    def _first(self, student: nn.Module, length: int) -> int:
        """The first sample that counts: all of a coupling flow's, whose density is that of a whole signal."""
        return 0 if isinstance(student, CouplingFlow) else first_scored(self.start, length)

    def _check_phones(self) -> None:
        """Raise UserError unless the perceptual term and its classifier come together, at one sample rate."""
        wanted = "perceptual" in self.config.weights
        if self.phones is None:
            require(not wanted, "objective.weights", "perceptual", "a phone classifier beside it, --phones RUN")
            return
        require(wanted, "--phones", "a classifier", "none without the term perceptual in objective.weights")
        self.phones.eval().requires_grad_(False)
        ours, theirs = self.teacher.config.audio.sample_rate, self.phones.config.audio.sample_rate
        require(ours == theirs, "--phones", f"a classifier of {theirs} Hz", f"one of the teacher's {ours} Hz")
        hop, scored = self.phones.config.audio.hop_length, self.crop_length - self.start
        require(hop <= scored, "--phones", f"frames of {hop} samples", f"at most the {scored} that a crop scores")

    def long_enough(self, clips: Sequence[Clip], audio: AudioConfig) -> list[Clip]:
        """The clips that hold the largest window after their first scored sample. Raises UserError for none."""
        require(len(clips) > 0, "dev clips", 0, "at least one to validate on")
        setting, largest = max(self.config.windows(audio).items(), key=lambda item: item[1], default=("", 0))
        lengths = [clip_length(clip, audio) for clip in clips]
        scored = [length - first_scored(self.start, length) for length in lengths]
        found = [clip for clip, samples in zip(clips, scored, strict=True) if samples >= largest]
        if not found:
            raise UserError(f"dev clips: found {len(clips)}, none longer than {setting} {largest} needs")
        return found

    @torch.no_grad()
    def validate(self, student: Student | CouplingFlow, corpus: Corpus, clips: int) -> Validation:
        """The same terms on held-out clips (at most 4 s of each), signs of health, the first clip beside its recording.

        The signs are of the samples that the terms are of.
        """
        chosen = self.long_enough(corpus.dev, student.config.audio)[:clips]
        audio, device = student.config.audio, next(student.parameters()).device
        sums: dict[str, float] = {}
        sounds: dict[str, Tensor] = {}
        signs: list[dict[str, float]] = []
        for number, clip in enumerate(chosen):
            length = round(_SECONDS * audio.sample_rate) // audio.hop_length * audio.hop_length
            wav = load_clip(clip, audio)[None, :length].to(device)
            speaker = clip_speaker(clip, student.config, device)
            mel = student.log_mel(wav)
            net = (student.pitch if isinstance(student, Student) else None) or self.teacher.pitch
            batch = Batch(wav, mel, speaker, None if net is None else net.predict(mel))
            start = self._first(student, wav.shape[1])
            terms, made, judged = self._pass(student, batch, torch.Generator().manual_seed(number), start)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value) / len(chosen)
            signs.append(vital_signs(made.wav[0], wav[0], self._f0(clip, wav[0], audio), audio))
            if judged is not None:
                signs[-1] |= noise_signs(judged, made.wav[:, start:])
            if not sounds:
                sample = student.sample(batch.mel, generator=torch.Generator().manual_seed(0), speaker=speaker)
                sounds = {"recording": wav[0], "sample": sample[0]}
        return Validation(sums, sounds, audio.sample_rate, mean_signs(signs))

    def _f0(self, clip: Clip, wav: Tensor, audio: AudioConfig) -> F0Track:
        """A recording's F0, tracked once for all validations."""
        if clip.path not in self._tracks:
            self._tracks[clip.path] = track(wav, audio.sample_rate, audio.hop_length)
        return self._tracks[clip.path]
