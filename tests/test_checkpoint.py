"""A checkpoint's path alone gives the same output; whatever is wrong with a file is one line that names it."""

import errno
import os
import pathlib
import re

import pytest
import torch

from distill import models
from tests.conftest import random_mel, random_wav, small_student, small_teacher
from wavenet import checkpoint
from wavenet.arguments import to_dict
from wavenet.errors import UserError


def save(path, model, kind="teacher", ema=None):
    checkpoint.save(
        path, kind=kind, config=to_dict(model.config), model_state=model.state_dict(), ema_state=ema, step=3
    )


@pytest.mark.parametrize("distribution", ["mol", "gaussian", "mulaw"])
def test_teacher_from_its_path_gives_equal_output(tmp_path, distribution):
    model = small_teacher(distribution, speakers=2).float().requires_grad_(False)
    save(tmp_path / "checkpoint.pt", model)
    for path in (tmp_path, tmp_path / "checkpoint.pt", str(tmp_path)):
        loaded = models.load(path)
        assert loaded.config == model.config
        assert not loaded.training
        wav, mel, speaker = random_wav().float(), random_mel().float(), torch.tensor([0, 1])
        assert torch.equal(loaded(wav, mel, speaker).log_prob(wav), model(wav, mel, speaker).log_prob(wav))


@pytest.mark.parametrize("noise", ["logistic", "normal"])
def test_student_from_its_path_gives_equal_output(tmp_path, noise):
    model = small_student(noise).float().requires_grad_(False)
    model.upsample.set_statistics(torch.arange(6.0), torch.full((6,), 2.0))
    save(tmp_path / "checkpoint.pt", model, "student")
    loaded, mel = models.load(tmp_path), random_mel().float()
    draws = [m.sample(mel, generator=torch.Generator().manual_seed(0)) for m in (model, loaded)]
    assert torch.equal(*draws)


def test_averaged_weights_are_used_where_there_are_any(tmp_path):
    model = small_teacher().float()
    average = {name: value + 1 for name, value in model.state_dict().items()}
    save(tmp_path / "checkpoint.pt", model, ema=average)
    loaded = models.load(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], average[name]) for name in average)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.5, 0.9, 0.999, 1.0])
def test_truncated_file_is_named(tmp_path, share):
    path = tmp_path / "checkpoint.pt"
    save(path, small_teacher())
    whole = path.read_bytes()
    path.write_bytes(whole[: min(int(share * len(whole)), len(whole) - 1)])
    with pytest.raises(UserError, match=re.escape(f"{path}: found a truncated or foreign file")):
        models.load(tmp_path)


def test_foreign_files_and_folders_are_named(tmp_path):
    (tmp_path / "song.wav").write_bytes(b"RIFF....")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    torch.save({"format": "wavenet-distillation", "version": 99}, tmp_path / "newer.pt")
    torch.save({"format": "wavenet-distillation"}, tmp_path / "versionless.pt")
    torch.save({"format": "wavenet-distillation", "version": 1, "kind": "teacher", "step": 3}, tmp_path / "part.pt")
    cases = {
        "nowhere": "found no such file",
        "song.wav": "found a truncated or foreign file",
        "other.pt": "found another program's file",
        "newer.pt": "found checkpoint version 99, expected 1 or older",
        "versionless.pt": "found checkpoint version None, expected 1 or older",
        "part.pt": "found no config, model_state, ema_state, optimizer_state, extra in it",
        ".": "found a folder without checkpoint.pt",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message):
            models.load(tmp_path / name)


def test_code_in_a_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return pathlib.Path.touch, (tmp_path / "touched",)

    torch.save({"format": "wavenet-distillation", "version": 1, "model_state": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="foreign"):
        models.load(tmp_path / "evil.pt")
    assert not (tmp_path / "touched").exists()


def test_unknown_kind_unknown_key_and_other_sizes_are_named(tmp_path):
    model = small_teacher()
    save(tmp_path / "kind.pt", model, "vocoder")
    with pytest.raises(UserError, match="found a model of kind 'vocoder', expected one of teacher, student"):
        models.load(tmp_path / "kind.pt")
    config = to_dict(model.config)
    checkpoint.save(tmp_path / "key.pt", kind="teacher", config=config | {"depth": 3}, model_state=model.state_dict())
    with pytest.raises(UserError, match="depth"):
        models.load(tmp_path / "key.pt")
    config["stack"]["layers"] = 2
    checkpoint.save(tmp_path / "sizes.pt", kind="teacher", config=config, model_state=model.state_dict())
    with pytest.raises(UserError, match=r"sizes\.pt: found a tensor stack\.blocks\.4\.dilated\.weight \(and 7 more\)"):
        models.load(tmp_path / "sizes.pt")
    config["stack"] |= {"layers": 3, "skip_channels": 7}
    checkpoint.save(tmp_path / "sizes.pt", kind="teacher", config=config, model_state=model.state_dict())
    with pytest.raises(UserError, match=r"sizes\.pt: found weights of other sizes: shape \(9, .*expected \(11, "):
        models.load(tmp_path / "sizes.pt")


def test_full_disk_leaves_the_previous_checkpoint_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save(path, small_teacher())
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device; not saved.*checkpoint\.pt") as caught:
        save(path, small_student(), "student")
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_write_that_the_system_cuts_short_says_why(tmp_path):
    """A limit on the size of files: the write fails half-way, as it does on a full disk."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "checkpoint.pt"
    save(path, small_teacher())
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    large = torch.nn.Linear(500, 500)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="not saved") as caught:
            checkpoint.save(path, kind="teacher", config={}, model_state=large.state_dict())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]
