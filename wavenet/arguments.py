"""Settings from command lines, YAML and checkpoints, and back to plain values; a mistake is a UserError of one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import jsonargparse
import yaml

from wavenet.errors import UserError

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


def parse_arguments(parser: jsonargparse.ArgumentParser, argv: Sequence[str] | None) -> Any:
    """Parse and instantiate; a wrong option, key or value raises UserError of one line instead of printing usage."""
    parser.exit_on_error = False
    try:
        return parser.instantiate(parser.parse_args(argv))
    except jsonargparse.ArgumentError as error:
        raise UserError(one_line(error)) from None


def one_line(error: BaseException) -> str:
    """The message of an exception on one line."""
    return " ".join(str(error).split())


def _untuple(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untuple(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_untuple(item) for item in value]
    return value
