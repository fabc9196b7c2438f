"""How numba compiles the engine: without the interpreter's lock, kept on disk where there is a place for it.

No flag that gives up NaN or infinity: a broken network must show.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.core import event
from numba.extending import intrinsic

_ARITHMETIC = {"contract", "reassoc", "nsz", "arcp"}
COMPILING = "numba:compile"
_PATIENCE = 1.0  # seconds of compiling without a word

helper: Callable[[Any], Any] = numba.njit(nogil=True, error_model="numpy", fastmath=_ARITHMETIC)


def _whole_vectors(typing: Any) -> Any:
    """Have the loops of the function that calls this take vectors as wide as the processor's registers.

    LLVM takes half of them on Intel's processors with AVX-512, which lower their clock for whole ones, as the products
    between these loops have made them do anyway. Where it prefers no halves this changes nothing.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        attributes = builder.function.attributes
        if isinstance(attributes, set):  # llvmlite itself adds none that has a value
            set.add(attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), codegen


whole_vectors: Any = intrinsic(_whole_vectors)


def kept(function: Callable[..., Any]) -> Any:
    """Compile a function, and keep the code on disk: beside the source, or in the user's cache folder.

    Where numba finds no folder that it may write, the code lives as long as the process. numba watches the function's
    own file alone: have the function close over `sources()`, and a change of any file of the engine is seen too. It may
    close over nothing else: code on disk is found by what its function closes over, pickled, and a compiled function is
    pickled differently by each process.
    """
    closed_over = [cell.cell_contents for cell in function.__closure__ or ()]
    assert closed_over in ([], [sources()]), f"{function.__name__} closes over {closed_over}"
    try:
        return numba.njit(nogil=True, error_model="numpy", fastmath=_ARITHMETIC, cache=True)(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        return helper(function)


def sources() -> str:
    """A digest of every source file of the engine."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def ready(compiled: Any, *arguments: object) -> None:
    """Have a function compiled for arguments like these, which is announced on stderr, or loaded from the disk."""
    signature = tuple(numba.typeof(argument) for argument in arguments)
    if signature in compiled.overloads:
        return
    announcement = _Announcement()
    try:
        with event.install_listener(COMPILING, announcement):
            compiled.compile(signature)
    finally:
        announcement.timer.cancel()


class _Announcement(event.Listener):
    """Says so once this thread has been compiling for a while. numba tells of compiling alone, not of loading.

    It tells every listener of what any thread compiles.
    """

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        message = "compiling for this processor, once: up to half a minute"
        self.timer = threading.Timer(_PATIENCE, print, [message], {"file": sys.stderr, "flush": True})
        self.timer.daemon = True
        self.begun = False

    def on_start(self, event: object) -> None:
        """Of the engine or of a function that it calls: the first one starts the clock."""
        if not self.begun and threading.get_ident() == self.thread:
            self.begun = True
            self.timer.start()

    def on_end(self, event: object) -> None:
        """The engine goes on after the functions that it calls."""
