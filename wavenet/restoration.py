"""A model from what a file holds: its configuration, a network of that, and the weights, if all of it fits together."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from wavenet.arguments import from_dict, unlike
from wavenet.checkpoint import Checkpoint, weights
from wavenet.errors import UserError

C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)

_FLOATS = (torch.float32, torch.float64)
_SPARE = 2**20  # parameters that a network may have while it is built, beyond twice those of its file


def restore(model_class: type[M], config_class: type[Any], stored: Checkpoint, path: str | os.PathLike[str]) -> M:
    """The model of a checkpoint, on the CPU. Raises UserError, naming `path`, where configuration and weights differ.

    A configuration of far more weights than there are is refused before their memory is touched.
    """
    tensors = weights(stored)
    config = configuration(config_class, stored, path)
    try:
        with _at_most(tensors, path):
            model = model_class(config)
    except UserError as error:
        raise (error if str(error).startswith(f"{path}: ") else UserError(f"{path}: {error}")) from None
    fill(model, tensors, path)
    return model


def configuration(config_class: type[C], stored: Checkpoint, path: str | os.PathLike[str]) -> C:
    """The configuration inside. Raises UserError, naming `path`, for settings that are unknown or mistaken.

    A run that is older than a setting takes its default; shipped weights must state every one.
    """
    if not isinstance(stored.config, dict):
        raise UserError(f"{path}: found no configuration, expected that of a {stored.kind}")
    unknown, missing = unlike(config_class, stored.config)
    if unknown:
        found, expected = f"a setting {first(unknown)} that is not known here", f"those of a {stored.kind}"
        raise UserError(f"{path}: found {found}, expected {expected} (written by a newer version?)")
    if missing and stored.shipped:
        raise UserError(f"{path}: found no setting {first(missing)}, expected every one of a {stored.kind}")
    try:
        return from_dict(config_class, stored.config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def fill(model: nn.Module, tensors: Any, path: str | os.PathLike[str]) -> None:
    """Load weights into a model. Raises UserError, naming `path` and a tensor, unless names, shapes and types agree.

    float64 is rounded where the model is float32; what was rounded or quantised before is no weight of it.
    """
    own = model.state_dict()
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(f"{path}: found no weights, expected those of the configuration inside")
    missing, extra = ([name for name in one if name not in other] for one, other in ((own, tensors), (tensors, own)))
    if missing:
        raise UserError(f"{path}: found no tensor {first(missing)}, expected all of the configuration inside")
    if extra:
        raise UserError(f"{path}: found a tensor {first(extra)}, expected none but those of the configuration inside")
    other = [name for name, value in own.items() if value.shape != tensors[name].shape]
    if other:
        name = other[0]
        shapes = f"shape {tuple(tensors[name].shape)} of {first(other)}, expected {tuple(own[name].shape)}"
        raise UserError(f"{path}: found weights of other sizes: {shapes}, by the configuration inside")
    cast = [name for name, value in own.items() if not _kept(tensors[name].dtype, value.dtype)]
    if cast:
        types = [str(which[cast[0]].dtype).removeprefix("torch.") for which in (tensors, own)]
        raise UserError(f"{path}: found {types[0]} values of {first(cast)}, expected {types[1]}")
    model.load_state_dict(dict(tensors))


def first(names: list[str]) -> str:
    """The first of several names, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"


def _kept(found: torch.dtype, own: torch.dtype) -> bool:
    return found == own or (found in _FLOATS and own in _FLOATS)


@contextlib.contextmanager
def _at_most(tensors: Any, path: str | os.PathLike[str]) -> Iterator[None]:
    """A network built within may have twice the file's weights, and a spare; beyond, UserError.

    Told as each parameter is registered: its memory is reserved then, and not yet written.
    """
    held = sum(value.numel() for value in tensors.values() if isinstance(value, Tensor)) if tensors else 0
    left, thread = 2 * held + _SPARE, threading.get_ident()
    expected = f"expected the {held} values that are in the file"

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        if parameter is not None and threading.get_ident() == thread:
            left -= parameter.numel()
            if left < 0:
                raise UserError(f"{path}: found a configuration of far more weights, {expected}")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    except (MemoryError, OverflowError, RuntimeError, TypeError) as error:
        # Not even an address for so many, or no number of torch's: it has no class of its own for either.
        if isinstance(error, (RuntimeError, TypeError)) and not any(w in str(error) for w in ("allocate", "verflow")):
            raise
        raise UserError(f"{path}: found a configuration of far more weights, {expected}") from None
    finally:
        handle.remove()
