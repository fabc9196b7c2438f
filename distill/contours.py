"""F0 that a user gives a source-filter student, or moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from wavenet.config import require
from wavenet.pitch.contour import Pitch, read_contour

_CONTOUR_SUFFIXES = (".txt", ".csv", ".npy")
_MOST_SEMITONES = 24.0


class Contours(NamedTuple):
    """Where F0 comes from: a file for one input, a folder with <stem>.txt or .npy for each, or the model; then moved.

    semitones: how far up, negative for down.
    """

    source: Path | None
    semitones: float

    def pitch(self, item: Path, mel: Tensor, model: Any) -> Pitch:
        """F0 and voicing (1, F) of an input whose mel is (1, M, F). Raises UserError naming the file."""
        if self.source is None:
            pitch = model.pitch.predict(mel)
        else:
            path = self.source
            if path.is_dir():
                found = [path / f"{item.stem}{suffix}" for suffix in _CONTOUR_SUFFIXES]
                path = next((candidate for candidate in found if candidate.is_file()), found[0])
            given = read_contour(path, mel.shape[2], model.config.audio)
            pitch = Pitch(given.f0.to(mel), given.voiced.to(mel))
        return pitch.transposed(self.semitones)


def contours_of(model: Any, f0: str | None, semitones: float) -> Contours | None:
    """What --f0 and --transpose ask for, None for neither. Raises UserError for a model that takes no F0."""
    if f0 is None and semitones == 0:
        return None
    name, value = ("--f0", f0) if f0 is not None else ("--transpose", semitones)
    require(
        getattr(model, "prior", None) is not None, name, value, "none: only a student with a source_filter takes F0"
    )
    within = abs(semitones) <= _MOST_SEMITONES
    require(within, "--transpose", semitones, f"semitones from {-_MOST_SEMITONES:g} to {_MOST_SEMITONES:g}")
    source = None if f0 is None else Path(f0)
    require(source is None or source.exists(), "--f0", f0, "a file of F0 values, or a folder of them")
    return Contours(source, semitones)
