"""What the argument parser says of a wrong setting, in this project's words: the thing, what was found, what expected.

What no rule here knows stays as the parser said it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jsonargparse
import yaml

_OPTIONS_ALONE = ("config", "help", "print_config", "print_shtab")  # which no file states
_WORDS = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text"}


def rephrased(message: str, parser: jsonargparse.ArgumentParser, argv: Sequence[str]) -> str:
    """The parser's message of one line -> "thing: found ..., expected ..."."""
    for pattern, tell in _RULES:
        found = re.fullmatch(pattern, message)
        if found and (told := tell(parser, argv, *found.groups())):
            return told
    return message


def _unknown(parser: jsonargparse.ArgumentParser, argv: Sequence[str], name: str) -> str:
    """A setting of a configuration file."""
    where = next((f"{path}: " for path in _configurations(argv) if _states(path, name)), "")
    known = [each for each in _settings(parser) if not each.endswith("+") and each not in _OPTIONS_ALONE]
    strange, expected = _nearest(name, known)
    return f"{where}{strange}: found a setting that is not known here, expected {expected}"


def _unknown_in(parser: jsonargparse.ArgumentParser, argv: Sequence[str], group: str, name: str) -> str:
    return _unknown(parser, argv, f"{group}.{name}")


def _unrecognised(parser: jsonargparse.ArgumentParser, argv: Sequence[str], arguments: str) -> str | None:
    option = next((word for word in arguments.split() if word.startswith("--")), None)
    if option is None:
        return None
    strange, expected = _nearest(option[2:].split("=")[0], _settings(parser), "--")
    return f"--{strange}: found an option that is not known here, expected {expected}"


def _nearest(name: str, known: Iterable[str], dashes: str = "") -> tuple[str, str]:
    """As much of a dotted name as is strange, and what may stand in its place."""
    parts, known = name.split("."), list(known)
    for depth in range(1, len(parts) + 1):
        strange, parent = ".".join(parts[:depth]), "".join(f"{part}." for part in parts[: depth - 1])
        if not any(f"{each}.".startswith(f"{strange}.") for each in known):
            break
    beside = sorted({each[len(parent) :].split(".")[0] for each in known if each.startswith(parent)})
    near = difflib.get_close_matches(parts[depth - 1], beside, 1)
    if near or not beside:
        return strange, f"{dashes}{parent}{near[0]}" if near else "none"
    return strange, f"one of {', '.join(f'{dashes}{parent}{each}' if dashes else each for each in beside)}"


def _settings(parser: jsonargparse.ArgumentParser) -> list[str]:
    """Dotted names of what the parser takes as options."""
    options = [option for action in parser._actions for option in action.option_strings]
    return [option[2:] for option in options if option.startswith("--") and not option.endswith(".help")]


def _configurations(argv: Sequence[str]) -> list[str]:
    """The configuration files of a command line."""
    after = [argv[place + 1] for place, word in enumerate(argv[:-1]) if word == "--config"]
    return after + [word.split("=", 1)[1] for word in argv if word.startswith("--config=")]


def _states(path: str, name: str) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            values: Any = yaml.safe_load(file)
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return False
    for part in name.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def _no_file(parser: jsonargparse.ArgumentParser, argv: Sequence[str], name: str, path: str) -> str:
    near = os.path.relpath(path)
    return f"--{name}: found no file {path if near.startswith('..') else near}, expected one"


def _of_type(parser: jsonargparse.ArgumentParser, argv: Sequence[str], name: str, kind: str, value: str) -> str | None:
    given = any(word.split("=")[0] == f"--{name}" for word in argv)
    where = "--" if given else next((f"{path}: " for path in _configurations(argv) if _states(path, name)), "")
    return f"{where}{name}: found {value}, expected {_WORDS[kind]}" if kind in _WORDS else None


def _required(parser: jsonargparse.ArgumentParser, argv: Sequence[str], names: str) -> str:
    options = _settings(parser)
    told = [f"--{name}" if name in options else name for name in names.split(", ")]
    return f"{', '.join(told)}: found nothing, expected {'a value' if len(told) == 1 else 'a value of each'}"


def _choice(parser: jsonargparse.ArgumentParser, argv: Sequence[str], option: str, value: str, known: str) -> str:
    return f"{option}: found {value}, expected one of {known.replace(chr(39), '')}"


def _bare(parser: jsonargparse.ArgumentParser, argv: Sequence[str], option: str, count: str) -> str:
    return f"{option}: found nothing, expected {count.replace('argument', 'value')}"


_RULES: list[tuple[str, Callable[..., str | None]]] = [
    (r"Group '(.+)' does not accept option '(.+)'", _unknown_in),
    (r"Option '(.+)' is not accepted", _unknown),
    (r"unrecognized arguments: (.+)", _unrecognised),
    (r"Parser key \"(.+)\": File does not exist: '(.+)'", _no_file),
    (r"Parser key \"(.+)\": Expected a <class '(\w+)'>\. Got value: (.*)", _of_type),
    (r"the following arguments are required: (.+)", _required),
    (r"argument (--[\w.]+): invalid choice: (.+) \(choose from (.+)\)", _choice),
    (r"argument (--[\w.]+): expected ((?:one|at least one) argument)", _bare),
]
