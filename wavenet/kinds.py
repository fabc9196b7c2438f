"""Which kind of model a recipe is of, and whose training that is: `wavenet-train` takes them all.

Packages above this one bring their kinds along as entry points of the group `wavenet.kinds`, by the name of the kind;
nothing here imports them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import yaml

from wavenet.errors import UserError

GROUP = "wavenet.kinds"
TEACHER = "teacher"


def stated_kind(argv: Sequence[str] | None, otherwise: str) -> str:
    """What the command line or its recipes say of `kind`: known first, for the model's settings hang on it."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--kind")
    early.add_argument("--config", action="append", default=[])
    try:
        said, _ = early.parse_known_args(argv)
        recipes = [yaml.safe_load(_text(config)) for config in said.config]
    except (argparse.ArgumentError, OSError, ValueError, yaml.YAMLError):
        return otherwise  # whichever: the command's own parser says what is wrong
    stated = [recipe.get("kind") for recipe in recipes if isinstance(recipe, dict)]
    found = [kind for kind in [*stated, said.kind] if kind is not None]
    return str(found[-1]) if found else otherwise


def kinds() -> list[str]:
    """The teacher, and what installed packages bring."""
    return sorted({TEACHER, *(point.name for point in entry_points(group=GROUP))})


def training_of(kind: str) -> Callable[[Sequence[str] | None], int]:
    """`body(argv) -> exit status` of the training that an installed package brings for a kind; else UserError."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    if kind not in found:
        expected = f"one of {', '.join(kinds())}, which this installation trains from recordings alone"
        raise UserError(f"kind: found '{kind}', expected {expected}")
    main = found[kind].load()
    # Without its own reporting of mistakes: they are those of the command that was called.
    body: Callable[[Sequence[str] | None], int] = getattr(main, "__wrapped__", main)
    return body


def _text(config: str) -> str:
    """A recipe's text: of a file, or what was typed in the place of its name."""
    return Path(config).read_text(encoding="utf-8") if Path(config).is_file() else config
