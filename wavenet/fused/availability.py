"""Whether compiled code runs here: numba may be missing, broken, or told to leave Python as it is."""

from __future__ import annotations

from wavenet.errors import UserError


def unusable() -> str:
    """Why the engine cannot run, in words; empty where it can."""
    try:
        from numba.core import config
    except ImportError as error:
        return f"numba cannot be imported: {' '.join(str(error).split())}"
    disabled = config.DISABLE_JIT  # type: ignore[attr-defined]
    return "NUMBA_DISABLE_JIT switches numba's compiler off" if disabled else ""


def expect_compiler(what: str, instead: str) -> None:
    """Raises UserError, one line, where `what` would need compiled code and none runs."""
    if reason := unusable():
        raise UserError(f"{what}: found no compiled code ({reason}), expected numba, or {instead}")
