"""A device that computes on the CPU and refuses what a GPU refuses for where its tensors are.

Operations between its tensors and the CPU's fail, but for numbers (0 dimensions) and indices; so do .numpy() and the
CPU's generators. Arithmetic is the CPU's, to the last bit. CUDA graphs are recorded and replayed (pretend_graphs.py).
What is not pretended: Triton's programs, streams that overlap, memory, speed, and where a file's tensors were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

from tests import pretend_graphs

_GPU = torch.device("cuda", 0)
_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
_PUT = {torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default}
_INDEXED = {torch.ops.aten.index.Tensor, *_PUT}
_aten = torch.ops.aten
# Views whose elements are signs away from what is stored: beneath these tensors nobody would apply the signs.
_SIGNED = {_aten._conj.default: _aten.conj_physical.default, _aten._neg_view.default: _aten.neg.default}
_TO = Tensor.to


class Pretended(Tensor):
    """A tensor of the device. C++ takes it for one of the CPU and asks for no driver; Python is told otherwise."""

    @staticmethod
    def __new__(cls, held: Tensor) -> Pretended:
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return Tensor._make_wrapper_subclass(cls, held.shape, requires_grad=held.requires_grad, **layout)

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __tensor_flatten__(self):
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner, meta, outer_size, outer_stride):
        return Pretended(inner["held"])

    @property
    def device(self) -> torch.device:
        return _GPU

    @property
    def is_cuda(self) -> bool:
        return True

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})

    def __reduce_ex__(self, protocol):
        """Kept as what it holds: a file says nothing of the device."""
        return self.held.__reduce_ex__(protocol)

    def tolist(self) -> list:
        pretend_graphs.refuse("a copy to the host")
        return self.held.tolist()

    def __repr__(self) -> str:
        return f"Pretended({self.held!r})"


class _Fetch(torch.autograd.Function):
    """From the device to the CPU."""

    @staticmethod
    def forward(ctx: Any, there: Pretended) -> Tensor:
        pretend_graphs.refuse("a copy to the host")
        return there.held.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _TO(gradient, _GPU)


class _Mode(TorchDispatchMode):
    """Sees operations that make a tensor of the device out of none."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _run(function: Any, args: tuple, kwargs: dict) -> Any:
    function = _SIGNED.get(function, function)
    asked = kwargs.get("device")
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    any_there = any(isinstance(x, Pretended) for x in tensors)
    if asked is None:
        on_gpu = isinstance(args[0], Pretended) if function in _COPIES else any_there
    elif torch.device(asked).type == "cpu" and (any_there or torch._C._current_graph_task_id() != -1):
        on_gpu = True  # C++ asks, for a tensor beside one that it takes for the CPU's: users' copies are `_Fetch`
    else:
        on_gpu = torch.device(asked).type == "cuda"
    indices = args[1] if function in _INDEXED and isinstance(args[0], Pretended) else []
    placed = [x for x in tensors if not any(x is index for index in indices)]
    if any_there and function not in _COPIES and any(x.dim() > 0 and not isinstance(x, Pretended) for x in placed):
        raise RuntimeError(f"{function}: expected all tensors on the same device, found cuda:0 and cpu")
    if on_gpu and kwargs.get("generator") is not None:
        raise RuntimeError(f"{function}: expected a generator on cuda, found one on cpu")
    if asked is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    own_args, own_kwargs = tree_map_only(Pretended, lambda x: x.held, (args, kwargs))
    if (function in _COPIES or indices) and not all(isinstance(x, Pretended) == on_gpu for x in tensors if x.dim() > 0):
        pretend_graphs.refuse("a copy between host and device")
    chosen = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
    if chosen and not (function in _PUT and args[2].numel() == 1):  # of one value a mask need not be counted
        pretend_graphs.refuse("an index that has to be counted")
    found = pretend_graphs.run(function, own_args, own_kwargs) if on_gpu else function(*own_args, **own_kwargs)
    if on_gpu:
        found = tree_map_only(Tensor, Pretended, found)
    return return_and_correct_aliasing(function, args, kwargs, found) if any_there else found


def _to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Tensor.to: C++ would find nothing to do between the CPU and what it takes for the CPU's."""
    if args and isinstance(args[0], Tensor):
        args = (args[0].device, args[0].dtype, *args[1:])
    device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
    if device is not None and device.type == "cpu" and isinstance(tensor, Pretended):
        tensor = _Fetch.apply(tensor)
    elif device is not None and device.type == "cuda" and not isinstance(tensor, Pretended):
        tensor = _TO(tensor, device)
    return tensor if dtype is None else _TO(tensor, dtype)


def _on_the_cpu(function: Callable) -> Callable:
    """The same, told of the CPU: what C++ believes."""
    return lambda device, *args, **kwargs: function("cpu", *args, **kwargs)


@contextlib.contextmanager
def pretended_gpu() -> Iterator[None]:
    """Within it the machine has one GPU, "cuda", without bfloat16 of its own."""
    replaced: list[tuple[Any, str, Any]] = [
        (Tensor, "to", _to),
        (Tensor, "cpu", lambda tensor: _to(tensor, "cpu")),
        (Tensor, "cuda", lambda tensor, device=None: _to(tensor, "cuda")),
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "device_count", lambda: 1),
        (torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation),
        (torch.cuda, "_lazy_init", lambda: None),
        *pretend_graphs.REPLACED,
    ]
    replaced += [
        (torch, name, _on_the_cpu(getattr(torch, name)))
        for name in ("autocast", "is_autocast_enabled", "get_autocast_dtype")
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, function in replaced:
            stack.enter_context(mock.patch.object(owner, name, function))
        torch._C._ensureCUDADeviceGuardSet()  # without a driver, to enter a device is then to do nothing
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device) is made here and taken there
        stack.enter_context(_Mode())
        yield
