"""The distillation step: the student's sample under the frozen teacher, and the same on held-out clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill.objective import Objective, ObjectiveConfig
from distill.student import Student
from wavenet.data import Batch, Clip, Corpus, load_clip
from wavenet.likelihood import first_scored, speaker_index
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
        # Emphasis and level of the spectral terms are the teacher's: they are a property of the corpus.
        self.start = first_scored(self.teacher.receptive_field, self.crop_length)

    def objective(self, student: Student, start: int) -> Objective:
        """The terms, with the first `start` samples left out."""
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
        sample = student(noise, batch.mel, batch.speaker)
        objective = self.objective(student, start)
        judged = self.teacher(sample.wav, batch.mel, batch.speaker) if objective.needs_teacher else None
        return objective(sample, judged, batch.wav, generator)

    @torch.no_grad()
    def validate(self, student: Student, corpus: Corpus, clips: int) -> Validation:
        """The same terms on held-out clips (at most 4 s of each), and the first clip as audio beside its recording."""
        chosen: Sequence[Clip] = corpus.dev[:clips]
        audio, device = student.config.audio, next(student.parameters()).device
        sums: dict[str, float] = {}
        sounds: dict[str, Tensor] = {}
        for number, clip in enumerate(chosen):
            length = round(_SECONDS * audio.sample_rate) // audio.hop_length * audio.hop_length
            wav = load_clip(clip, audio)[None, :length].to(device)
            speaker = speaker_index(clip, corpus.speakers, device) if student.config.speakers else None
            batch = Batch(wav, student.log_mel(wav), speaker)
            start = first_scored(self.start, wav.shape[1])
            terms = self._terms(student, batch, torch.Generator().manual_seed(number), start)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + float(value) / len(chosen)
            if not sounds:
                sample = student.sample(batch.mel, generator=torch.Generator().manual_seed(0), speaker=speaker)
                sounds = {"recording": wav[0], "sample": sample[0]}
        return Validation(sums, sounds, audio.sample_rate)
