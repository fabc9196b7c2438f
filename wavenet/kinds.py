"""Which kind of model a recipe is of, and whose training that is: `wavenet-train` takes them all.

Packages above this one bring their kinds along as entry points of the group `wavenet.kinds`, by the name of the kind;
nothing here imports them.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import yaml

from wavenet.errors import UserError

GROUP = "wavenet.kinds"
TEACHER = "teacher"


def stated_kind(argv: Sequence[str] | None, otherwise: str) -> str:
    """What the command line or its recipe says of `kind`: known first, for the model's settings hang on it."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--kind", "--config"):
        early.add_argument(name)
    try:
        said, _ = early.parse_known_args(argv)
        stated = yaml.safe_load(Path(said.config).read_text(encoding="utf-8")) if said.config else {}
    except (argparse.ArgumentError, OSError, UnicodeDecodeError, yaml.YAMLError):
        return otherwise  # whichever: the command's own parser says what is wrong
    return said.kind or (str(stated.get("kind", otherwise)) if isinstance(stated, dict) else otherwise)


def training_of(kind: str) -> Callable[[Sequence[str] | None], int]:
    """`body(argv) -> exit status` of the training that an installed package brings for a kind; else UserError."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    if kind not in found:
        raise UserError(f"kind: found '{kind}', expected one of {', '.join(sorted({TEACHER, *found}))}")
    # Without its own reporting of mistakes: they are those of the command that was called.
    body: Callable[[Sequence[str] | None], int] = inspect.unwrap(found[kind].load())
    return body
