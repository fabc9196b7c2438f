"""Where numba does not compile: auto says so in one line and samples all the same, fused is refused in one."""

import os
import subprocess
import sys

import pytest

CODE = """
import sys
if {missing}:
    sys.modules["numba"] = None
import torch
from tests.conftest import random_mel, small_student, small_teacher
from wavenet.errors import UserError
torch.set_num_threads(1)
models, mel = [small_teacher("gaussian", linear_prediction=order) for order in (0, 3)], random_mel(1)
for model in models:
    auto = model.sample(mel, seed=0)
    assert torch.equal(auto, model.sample(mel, "cached", seed=0))
student = small_student(flows=1)
refused = [lambda model=model: model.sample(mel, "fused", seed=0) for model in models]
for run in (*refused, lambda: student.log_prob(auto, mel)):
    try:
        run()
    except UserError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("missing", "reason"),
    [(False, "NUMBA_DISABLE_JIT switches numba's compiler off"), (True, "numba cannot be imported: ")],
)
def test_without_a_compiler(missing, reason):
    environment = os.environ | ({} if missing else {"NUMBA_DISABLE_JIT": "1"})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE.format(missing=missing)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"method: cached, as fused does not run here ({reason}")
    fused, predicted, inverse = done.stdout.splitlines()
    assert fused.startswith(f"method fused: found no compiled code ({reason}")
    assert fused.endswith("expected numba, or cached")
    assert predicted.startswith(f"linear prediction by this method: found no compiled code ({reason}")
    assert inverse.startswith(f"inverse of a flow: found no compiled code ({reason}")
