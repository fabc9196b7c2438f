"""Compiles every launch of the cases of tests/persistent_cases.py and tests/fused_cases.py, in a process of its own.

python -m tests.triton_cases FILE [CASE ...]      # {name: [a launch's kernel and figures]}, as JSON

A driver that names an H200's architecture stands for the GPU: Triton then compiles down to machine code, and nothing is
launched. What the samplers and engines ask for is so compiled with their own arguments, alignments and constants.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from distill.engines import fused_layers
from tests import fused_cases, persistent_cases
from wavenet.sampling import persistent
from wavenet.teacher import Teacher


class Driver:
    """All that Triton asks of one before a launch."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def compiled(names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """For each case its launches: kernel, code and shared memory [bytes], whether it multiplies in TF32, and barriers
    that it asks for itself."""
    driver.set_active(Driver())
    launches: list[dict[str, Any]] = []

    def at(kernel: JITFunction, grid: Any) -> Any:
        def launch(*arguments: Any, **settings: Any) -> None:
            code = kernel.run(*arguments, grid=grid, warmup=True, **settings)
            figures = {
                "code": len(code.asm["cubin"]),
                "shared": code.metadata.shared,
                "tf32": "tf32" in code.asm["ptx"],
                "barriers": code.asm["ttgir"].count("barrier"),
            }
            launches.append({"kernel": kernel.fn.__name__} | figures)

        return launch

    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JITFunction, "__getitem__", at)
        patch.setattr(persistent, "_expect_device", lambda device: None)
        patch.setattr(fused_layers, "_interpreted", lambda: True)
        patch.setattr(Teacher, "sample", lambda self, mel, *arguments, **settings: mel[:, 0])  # the reference
        for name in names:
            launches.clear()
            cases = persistent_cases if name in persistent_cases.CASES else fused_cases
            cases.run(cases.CASES[name])
            found[name] = list(launches)
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(compiled(sys.argv[2:])), encoding="utf-8")
