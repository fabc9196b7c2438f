"""Whether Triton's programs run here, found out without importing it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

from wavenet.errors import UserError


def available() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def missing(launched: bool = True) -> str:
    """What Triton's programs lack here, as "found no X, expected Y"; empty where they run.

    launched: on a GPU, for which Triton compiles in C what launches a program, and not interpreted.
    """
    if not available():
        return "found no Triton, expected `pip install triton`"
    if not launched:
        return ""
    own = os.environ.get("CC")
    if not any(shutil.which(name) for name in ([own] if own is not None else ["gcc", "clang"])):
        return "found no C compiler, which Triton's launches need, expected CC or gcc or clang"
    scheme = sysconfig.get_default_scheme()
    # As Triton looks: Debian's own scheme names a folder that holds no headers.
    include = sysconfig.get_paths("posix_prefix" if scheme == "posix_local" else scheme)["include"]
    if not (Path(include) / "Python.h").is_file():
        return "found no Python.h, which Triton's launches need, expected the headers of this Python"
    return ""


def expect_triton(what: str, instead: str, launched: bool = True) -> None:
    """Raises UserError, one line, where `what` would need Triton's programs and none run; launched as for `missing`."""
    if lack := missing(launched):
        raise UserError(f"{what}: {lack}, or {instead}")
