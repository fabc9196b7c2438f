"""Whether Triton is there, found out without importing it."""

from __future__ import annotations

import importlib.util


def available() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None
