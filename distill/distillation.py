"""The distillation step: the student's sample under the frozen teacher, and the same on held-out clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill.objective import Objective, ObjectiveConfig
from distill.student import Student
from wavenet.config import AudioConfig, require
from wavenet.data import Batch, Clip, Corpus, clip_length, load_clip
from wavenet.errors import UserError
from wavenet.likelihood import clip_speaker, first_scored, random_offset
from wavenet.teacher import Teacher
from wavenet.trainer import Validation

_SECONDS = 4.0


@dataclasses.dataclass
class Distillation:
    """loss(student, batch, generator): sample, one teacher pass on that sample, the named terms.

    The teacher is frozen and in eval mode, yet the gradient flows through it to the student's sample. It never sees the
    recording here: only the student's own x.
    """

    teacher: Teacher
    config: ObjectiveConfig
    crop_length: int

    def __post_init__(self) -> None:
        self.teacher.eval().requires_grad_(False)
        self.start = first_scored(self.teacher.receptive_field, self.crop_length)
        # The largest window of the spectral term, 0 without that term.
        self.largest = max(self.config.stft_sizes) if "stft" in self.config.weights else 0
        largest, scored = self.largest, self.crop_length - self.start
        require(
            largest <= scored,
            "objective.stft_sizes",
            largest,
            f"at most {scored}, what train.crop_length {self.crop_length} scores",
        )

    def objective(self, student: Student, start: int) -> Objective:
        """The terms, with the first `start` samples left out; spectra are of the signal that the flows make."""
        emphasis = student.config.pre_emphasis
        return Objective(self.config, emphasis, student.gain, self.teacher.config.distribution.log_scale_floor, start)

    def loss(self, model: nn.Module, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """{"loss", "loss/<term>", "kl/...", "stft/..."}: scalars."""
        assert isinstance(model, Student)
        return self._terms(model, batch, generator, first_scored(self.start, batch.wav.shape[1]))

    def _terms(
        self, student: Student, batch: Batch, generator: torch.Generator | None, start: int
    ) -> dict[str, Tensor]:
        noise = student.noise(batch.mel, generator=generator)
        # One voice for both: the teacher's source, where it has one, is in step with the student's.
        pitch, offset = batch.pitch, random_offset(batch, generator) if student.training else None
        sample = student(noise, batch.mel, batch.speaker, pitch, offset)
        objective = self.objective(student, start)
        judged = self.teacher(sample.wav, batch.mel, batch.speaker, pitch, offset) if objective.needs_teacher else None
        return objective(sample, judged, batch.wav, generator)

    def long_enough(self, clips: Sequence[Clip], audio: AudioConfig) -> list[Clip]:
        """The clips that hold the largest STFT window after their first scored sample. Raises UserError for none."""
        lengths = [clip_length(clip, audio) for clip in clips]
        scored = [length - first_scored(self.start, length) for length in lengths]
        found = [clip for clip, samples in zip(clips, scored, strict=True) if samples >= self.largest]
        if not found:
            raise UserError(
                f"dev clips: found {len(clips)}, none longer than objective.stft_sizes {self.largest} needs"
            )
        return found

    @torch.no_grad()
    def validate(self, student: Student, corpus: Corpus, clips: int) -> Validation:
        """The same terms on held-out clips (at most 4 s of each), and the first clip as audio beside its recording."""
        chosen = self.long_enough(corpus.dev, student.config.audio)[:clips]
        audio, device = student.config.audio, next(student.parameters()).device
        sums: dict[str, float] = {}
        sounds: dict[str, Tensor] = {}
        for number, clip in enumerate(chosen):
            length = round(_SECONDS * audio.sample_rate) // audio.hop_length * audio.hop_length
            wav = load_clip(clip, audio)[None, :length].to(device)
            speaker = clip_speaker(clip, student.config, device)
            mel = student.log_mel(wav)
            net = student.pitch or self.teacher.pitch
            batch = Batch(wav, mel, speaker, None if net is None else net.predict(mel))
            start = first_scored(self.start, wav.shape[1])
            terms = self._terms(student, batch, torch.Generator().manual_seed(number), start)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value) / len(chosen)
            if not sounds:
                sample = student.sample(batch.mel, generator=torch.Generator().manual_seed(0), speaker=speaker)
                sounds = {"recording": wav[0], "sample": sample[0]}
        return Validation(sums, sounds, audio.sample_rate)
