"""The C library's heap, kept from handing memory back to the system between the steps of a training run."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

# mallopt(3) of glibc: from where a block is mapped on its own, and what lies free at the heap's top and is kept.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST_THRESHOLD = 32 * 2**20  # bytes: the most that glibc takes
_KEPT, _PAD = 2**31 - 1, 64 * 2**20
# Where glibc's own, moving thresholds end in a process that has freed large blocks.
_USUAL = {_TRIM_THRESHOLD: 2 * _LARGEST_THRESHOLD, _TOP_PAD: 128 * 2**10, _MMAP_THRESHOLD: _LARGEST_THRESHOLD}


@contextlib.contextmanager
def kept_heap() -> Iterator[None]:
    """Freed memory stays with the process meanwhile, and goes back at the end; nothing but glibc is touched.

    Each step asks for the same blocks again. Handed back in between, every page of them is a page fault, which the
    system fills with zeros before the step may write it: 5 to 10% of a small model's step on a CPU.
    """
    if not _set({_TRIM_THRESHOLD: _KEPT, _TOP_PAD: _PAD, _MMAP_THRESHOLD: _LARGEST_THRESHOLD}):
        yield
        return
    try:
        yield
    finally:
        _set(_USUAL)
        ctypes.CDLL(None).malloc_trim(0)


def _set(options: dict[int, int]) -> bool:
    """False where there is no such setting (another C library, another system)."""
    try:
        library = ctypes.CDLL(None)
        return all(library.mallopt(option, value) == 1 for option, value in options.items())
    except (OSError, AttributeError, TypeError):
        return False
