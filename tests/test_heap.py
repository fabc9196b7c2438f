"""Blocks that every step asks for again come from memory that the process kept: no page is faulted in twice."""

import json
import platform
import subprocess
import sys

import pytest

from wavenet.heap import kept_heap

# In a process of its own: what else lies on a heap decides where blocks go. The blocks are below the size that glibc
# maps alone (32 MiB), their sum above what it keeps by itself (64 MiB).
_STEPS = """
import json, resource
import numpy as np
from wavenet.heap import kept_heap

def faults_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.full(6 * 2**20, 1.0, dtype=np.float32) for _ in range(6)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = [faults_of_a_step() for _ in range(9)]
with kept_heap():
    kept = [faults_of_a_step() for _ in range(9)]
print(json.dumps([without[-5:], kept[-5:]]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_repeated_step_faults_no_page_in():
    run = subprocess.run([sys.executable, "-c", _STEPS], capture_output=True, text=True, check=True)
    without, kept = json.loads(run.stdout)
    assert min(without) > 50  # of 144 MiB, in pages of 2 MiB at the largest; else the allocator itself keeps them
    assert max(kept) < min(without) / 20


def test_an_error_inside_comes_out():
    with pytest.raises(KeyError), kept_heap():
        raise KeyError("inside")
