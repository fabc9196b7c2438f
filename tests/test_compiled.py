"""What the samplers and engines ask of Triton compiles for a GPU, case by case, with no GPU there."""

import json
import os
import subprocess
import sys

import pytest

from tests import fused_cases, persistent_cases
from wavenet.kernels.availability import available

pytestmark = pytest.mark.skipif(not available(), reason="needs Triton, which is not installed")

CASES = [*persistent_cases.CASES, *fused_cases.CASES]
# Every program and every branch in it but for sizes; the rest is the same with others.
FEW = [
    "block mol",
    "block mol kernel 1",
    "block mulaw kernel 4",
    "block mulaw at temperature 0",
    "block of 64 channels",
    "whole mulaw kernel 4",
    "whole gaussian in float32",
    "whole with a source and speakers",
    "circle mol kernel 1",
    "circle mulaw at temperature 0",
    "circle with a source and speakers",
    "kernel 1",
    "rounded, kernel 2",
    "flows, signals and conditioning",
]
KERNELS = {"block": {"layer_row", "between_rows"}, "whole": {"whole"}, "circle": {"circle"}}


def compiled(names, place):
    path = place / "launches.json"
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(place)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.triton_cases", str(path), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return compiled(FEW, tmp_path_factory.mktemp("few"))


@pytest.fixture(scope="module")
def rest(tmp_path_factory):
    return compiled([name for name in CASES if name not in FEW], tmp_path_factory.mktemp("rest"))


def check(name, launches):
    expected = KERNELS.get(name.split()[0], {"enter", "layer", "leave"})
    assert {launch["kernel"] for launch in launches} == expected
    if name.startswith("block"):
        case = persistent_cases.CASES[name]
        blocks, samples = -(-case.samples // persistent_cases.BLOCK), persistent_cases.BLOCK
        assert len(launches) == (1 + case.before) * blocks * (samples * (case.layers + 1) + 1)
        between = [launch for launch in launches if launch["kernel"] == "between_rows"]
        assert all(launch["barriers"] == max(0, case.kernel_size - 2) for launch in between)
    for launch in launches:
        assert launch["code"] > 1000
        assert launch["shared"] < 48 * 1024
        assert not launch["tf32"] or name not in persistent_cases.CASES


@pytest.mark.parametrize("name", FEW)
def test_launches_compile(name, few):
    check(name, few[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in FEW])
def test_all_launches_compile(name, rest):
    check(name, rest[name])
