"""Where Triton, or what it compiles its launches with, is missing: a line that names it, not a traceback."""

import sysconfig
import types

import pytest
import torch

from distill.engines.compiled import compiled
from distill.engines.fused_layers import FusedFlows
from wavenet.errors import UserError
from wavenet.kernels import availability
from wavenet.kernels.availability import missing
from wavenet.sampling import graph, persistent

COMPILER = "found no C compiler, which Triton's launches need, expected CC or gcc or clang"
GPU = types.SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32)  # a weight there


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """One with Triton, headers and gcc, of which each can be taken away."""
    (tmp_path / "posix_prefix").mkdir()
    (tmp_path / "posix_prefix" / "Python.h").touch()
    (tmp_path / "gcc").write_text("")
    (tmp_path / "gcc").chmod(0o755)
    monkeypatch.setattr(availability, "available", lambda: True)
    monkeypatch.setattr(sysconfig, "get_paths", lambda scheme: {"include": str(tmp_path / scheme)})
    monkeypatch.setattr(sysconfig, "get_default_scheme", lambda: "posix_local")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    return tmp_path


def test_nothing_is_missing(machine, capsys, monkeypatch):
    assert missing() == ""
    assert graph._kernels()
    monkeypatch.setenv("CC", str(machine / "gcc"))
    assert missing() == ""
    assert capsys.readouterr().err == ""


def test_what_is_missing_is_named(machine, monkeypatch):
    (machine / "posix_prefix" / "Python.h").unlink()
    assert missing() == "found no Python.h, which Triton's launches need, expected the headers of this Python"
    monkeypatch.setenv("CC", "/nowhere/cc")  # it counts, whatever else is on the path
    assert missing() == COMPILER
    monkeypatch.delenv("CC")
    (machine / "gcc").unlink()
    assert missing() == COMPILER
    assert missing(launched=False) == ""  # interpreted
    monkeypatch.setattr(availability, "available", lambda: False)
    assert missing(launched=False) == missing() == "found no Triton, expected `pip install triton`"


def test_a_graph_does_without_and_says_so_once(machine, capsys):
    (machine / "gcc").unlink()
    assert not graph._kernels()
    assert not graph._kernels()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"method graph: by tensor operations, four times as many; {COMPILER}"


@pytest.mark.parametrize(
    ("refused", "what"),
    [
        (lambda: persistent._expect_device(GPU.device), "method persistent"),
        (lambda: compiled(types.SimpleNamespace(parameters=lambda: iter([GPU]))), "engine"),
        (
            lambda: FusedFlows(
                [types.SimpleNamespace(stack=types.SimpleNamespace(input=types.SimpleNamespace(weight=GPU)))]
            ),
            "engine",
        ),
    ],
    ids=["persistent", "compile", "triton"],
)
def test_what_is_nothing_without_is_refused(refused, what, machine):
    (machine / "gcc").unlink()
    with pytest.raises(UserError, match=f"^{what}: {COMPILER}, or another (method|engine)"):
        refused()
