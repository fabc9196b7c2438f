"""CUDA graphs of the pretended GPU: operations are written down, and done again in the same tensors by a replay.

As on a GPU, nothing happens while it is recorded: what is written to is put back afterwards, what is made holds NaN,
or an integer's least. What waits for the device, or copies between it and the host, cannot be recorded.
"""

from __future__ import annotations

import contextlib
import time
import types
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

_aten = torch.ops.aten
_WAITING = {
    _aten._local_scalar_dense.default,
    _aten.nonzero.default,
    _aten.equal.default,
    _aten.masked_select.default,
    _aten._unique2.default,
    _aten.unique_dim.default,
    _aten.unique_consecutive.default,
}
_open: list[Graph] = []


class Graph:
    """torch.cuda.CUDAGraph."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, tuple, dict, list[Tensor]]] = []
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self.own: dict[int, Tensor] = {}

    def replay(self) -> None:
        """All operations once more, where they read and wrote."""
        assert not _open, "a replay cannot be recorded"
        for function, args, kwargs, made in self.operations:
            again = [x for x in tree_flatten(function(*args, **kwargs))[0] if isinstance(x, Tensor)]
            for place, value in zip(made, again, strict=True):
                if place.data_ptr() != value.data_ptr():
                    place.copy_(value)

    def note(self, function: Any, args: tuple, kwargs: dict) -> Any:
        """Do it, and write it down unless it only looks at memory that there is."""
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        if function._schema.is_mutable:
            for tensor in given:
                storage = tensor.untyped_storage()
                self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        found = function(*args, **kwargs)
        made = [x for x in tree_flatten(found)[0] if isinstance(x, Tensor)]
        known = {x.untyped_storage().data_ptr() for x in given}
        new = {x.untyped_storage().data_ptr(): x for x in made if x.untyped_storage().data_ptr() not in known}
        if function._schema.is_mutable or new:
            self.operations.append((function, args, kwargs, made))
        self.own |= new
        return found

    def undo(self) -> None:
        """As if nothing had been done."""
        for storage, held in self.before.values():
            storage.copy_(held)
        for tensor in self.own.values():
            if tensor.is_floating_point() or tensor.is_complex():
                tensor.fill_(torch.nan)
            elif tensor.dtype != torch.bool:
                tensor.fill_(torch.iinfo(tensor.dtype).min)


def run(function: Any, args: tuple, kwargs: dict) -> Any:
    """An operation of the device."""
    if not _open:
        return function(*args, **kwargs)
    if function in _WAITING:
        refuse(str(function))
    return _open[-1].note(function, args, kwargs)


def refuse(what: str) -> None:
    """Raises RuntimeError while a graph is recorded."""
    if _open:
        raise RuntimeError(f"{what}: operation not permitted when stream is capturing")


@contextlib.contextmanager
def _recorded(graph: Graph, pool: Any = None) -> Iterator[None]:
    _open.append(graph)
    try:
        yield
    finally:
        _open.pop()
        graph.undo()


class _Event:
    def __init__(self, enable_timing: bool = False) -> None:
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        refuse("synchronize")

    def elapsed_time(self, end: _Event) -> float:
        return 1e3 * (end.at - self.at)


_STREAM = mock.Mock(synchronize=lambda: refuse("synchronize"))
# What it takes the place of: owner, name, substitute.
REPLACED: list[tuple[Any, str, Any]] = [
    (torch.cuda, "CUDAGraph", Graph),
    (torch.cuda, "graph", _recorded),
    (torch.cuda, "graph_pool_handle", lambda: None),
    (torch.cuda, "Stream", lambda device=None: _STREAM),
    (torch.cuda, "current_stream", lambda device=None: _STREAM),
    (torch.cuda, "stream", lambda stream: contextlib.nullcontext()),
    (torch.cuda, "device", lambda device: contextlib.nullcontext()),
    (torch.cuda, "device_of", lambda tensor: contextlib.nullcontext()),
    (torch.cuda, "Event", _Event),
    (torch.cuda, "synchronize", lambda device=None: refuse("synchronize")),
    (torch.cuda, "current_device", lambda: 0),
    (torch.cuda, "get_device_name", lambda device=None: "pretended"),
    (torch.cuda, "get_device_properties", lambda device=None: types.SimpleNamespace(multi_processor_count=132)),
    (torch.cuda, "memory_allocated", lambda device=None: 0),
    (torch.cuda, "max_memory_allocated", lambda device=None: 0),
    (torch.cuda, "reset_peak_memory_stats", lambda device=None: None),
]
