"""Settings from command lines, YAML and checkpoints, and back to plain values; a mistake is a UserError of one line."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import jsonargparse
import yaml

from wavenet.errors import UserError
from wavenet.rephrasing import rephrased

# Metadata of a setting that older weights do not state: its default is what they were made with.
LATER = {"later": True}

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain dicts, lists and numbers (for YAML, JSON and checkpoints)."""
    values = config if isinstance(config, dict) else dataclasses.asdict(config)
    plain: dict[str, Any] = yaml.safe_load(yaml.safe_dump(_untuple(values)))
    return plain


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Build the dataclass `cls` from plain values; missing keys take their defaults, unknown keys raise UserError."""
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        section = dataclasses.is_dataclass(field.default_factory)
        if section and not isinstance(values.get(field.name, {}), dict):
            raise UserError(f"{field.name}: found {values[field.name]!r}, expected a section of settings")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls)
    try:
        return cls(**parser.instantiate(parser.parse_object(values)).as_dict())
    except jsonargparse.ArgumentError as error:
        raise UserError(one_line(error)) from None


def unlike(cls: type[Any], values: dict[str, Any], prefix: str = "") -> tuple[list[str], list[str]]:
    """Dotted names of the settings in plain values that the dataclass `cls` has not, and of those that they lack.

    What is marked LATER may be lacking.
    """
    types = typing.get_type_hints(cls)
    known = {field.name: types[field.name] for field in dataclasses.fields(cls)}
    unknown = [f"{prefix}{name}" for name in values if name not in known]
    later = {field.name for field in dataclasses.fields(cls) if LATER.items() <= field.metadata.items()}
    missing = [f"{prefix}{name}" for name in known if name not in values and name not in later]
    for name in [name for name in known if name in values]:
        inner, found = known[name], values[name]
        if typing.get_origin(inner) is list and isinstance(found, list):
            parts = [(typing.get_args(inner)[0], item, f"{prefix}{name}.{place}.") for place, item in enumerate(found)]
        else:
            parts = [(inner, found, f"{prefix}{name}.")]
        for part, item, place in parts:
            if dataclasses.is_dataclass(part) and isinstance(part, type) and isinstance(item, dict):
                strange, lacking = unlike(part, item, place)
                unknown, missing = unknown + strange, missing + lacking
    return unknown, missing


def parse_arguments(parser: jsonargparse.ArgumentParser, argv: Sequence[str] | None) -> Any:
    """Parse and instantiate; a wrong option, key or value raises UserError of one line instead of printing usage."""
    parser.exit_on_error = False
    try:
        return parser.instantiate(parser.parse_args(argv))
    except jsonargparse.ArgumentError as error:
        raise UserError(rephrased(one_line(error), parser, sys.argv[1:] if argv is None else argv)) from None


def one_line(error: BaseException) -> str:
    """The message of an exception on one line."""
    return " ".join(str(error).split())


def _untuple(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untuple(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_untuple(item) for item in value]
    return value
