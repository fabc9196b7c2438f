"""Devices by name: what is not there is one line; TF32 is off inside full_precision and restored after."""

import pytest
import torch

from wavenet.device import full_precision, in_bf16, resolve_device
from wavenet.errors import UserError


def test_known_names():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "meta", "mps", "xpu", ""])
def test_other_devices_are_refused(name):
    with pytest.raises(UserError, match=f"device: found '{name}', expected auto, cpu or cuda"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:99"])
def test_a_gpu_that_is_not_there_is_refused(name):
    if torch.cuda.is_available() and name == "cuda":
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match=f"device: found '{name}'"):
        resolve_device(name)


@pytest.mark.parametrize("able", [False, True])
def test_bfloat16_is_chosen_where_the_machine_multiplies_in_it(monkeypatch, able):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able and not including_emulation)
    for device in ("cpu", "cuda", "cuda:1"):
        assert in_bf16("auto", device) is able
        assert in_bf16("bf16", device)
        assert not in_bf16("none", device)


def test_full_precision_turns_tf32_off_and_restores_it():
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        with full_precision():
            assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (False, False)
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
