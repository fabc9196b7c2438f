"""Blocks that every step asks for again come from memory that the process kept: no page is faulted in twice."""

import platform
import resource

import pytest
import torch

from wavenet.heap import kept_heap

_BLOCKS, _FLOATS = 4, 2 * 2**20  # 8 MiB each


def faults_of_a_step() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(_FLOATS) for _ in range(_BLOCKS)]
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_repeated_step_faults_no_page_in():
    pages = _BLOCKS * _FLOATS * 4 // resource.getpagesize()
    with kept_heap():
        later = [faults_of_a_step() for _ in range(5)][-1]
    assert later < pages / 20


def test_an_error_inside_comes_out():
    with pytest.raises(KeyError), kept_heap():
        raise KeyError("inside")
