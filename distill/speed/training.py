"""How fast recipes train, as the benchmark tells it: audio samples a second, and each part's share of a step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.speed import recipe_task
from distill.training_speed import profile_distillation, profile_teacher, shares_table
from wavenet.config import require

_SMOKE = Path(__file__).resolve().parent.parent.parent / "configs" / "smoke"
USUAL = f"{_SMOKE / 'teacher_mol.yaml'},{_SMOKE / 'student_mol.yaml'}:{_SMOKE / 'teacher_mol.yaml'}"  # miniatures


def pairs_of(text: str) -> list[tuple[str, str]]:
    """(recipe, teacher's recipe or "") from "TEACHER.yaml,STUDENT.yaml:TEACHER.yaml,...".

    Raises UserError for what is no recipe, and for a student without a teacher; OSError for a file that is not there.
    """
    pairs = [(one, other) for one, _, other in (part.strip().partition(":") for part in text.split(","))]
    for recipe, teacher in pairs:
        for path in filter(None, (recipe or "none", teacher)):
            require(path.endswith(".yaml"), "--training", path, "recipes (.yaml), STUDENT:TEACHER for a distillation")
        alone = not recipe_task.needs_teacher(recipe_task.read(recipe))
        require(alone or bool(teacher), "--training", recipe, f"{recipe}:TEACHER, which it distils")
        teaches = bool(teacher) and "distribution" in recipe_task.read(teacher).get("model", {})
        require(not teacher or teaches, "--training", teacher, "a teacher's recipe after the colon")
    return pairs


def training_speeds(
    pairs: Sequence[tuple[str, str]], *, steps: int = 10, warmup: int = 3, threads: int = 1, device: str = "cpu"
) -> list[dict[str, Any]]:
    """A profile, as of `distill.training_speed.profile_teacher`, for each of `pairs_of`: untrained models, their own
    recipe's corpus, crops and batches, `steps` steps after `warmup`."""
    settings: dict[str, Any] = {"steps": steps, "warmup": warmup, "threads": threads, "device": device}
    return [
        profile_distillation(recipe, teacher, **settings) if teacher else profile_teacher(recipe, **settings)
        for recipe, teacher in pairs
    ]


def training_table(profiles: Sequence[dict[str, Any]]) -> str:
    """The profiles side by side in Markdown, with a sentence on what they are."""
    first = profiles[0]
    counted = (
        f"Training: samples of audio in the batches of {first['steps']} steps, on {first['device']}, "
        f"{first['threads']} thread(s); below, each part's share of a step."
    )
    return f"{counted}\n\n{shares_table(profiles)}"
