"""Crops played at other speeds: sound, mel and label move together; the rest stays as it is."""

import numpy as np
import pytest
import soundfile
import torch

from wavenet.config import AudioConfig, PitchDataConfig
from wavenet.data import CropDataset, open_corpus
from wavenet.errors import UserError
from wavenet.features import LogMel
from wavenet.pitch.labels import PitchedCrops, label
from wavenet.pitch.speed import Played
from wavenet.pitch.tracker import track

AUDIO = AudioConfig(8000, 256, 256, 64, 20, 0.0, 4000.0)
CROP = 6400


def pitched(folder, lowest, seconds=4.0, batch_size=4):
    """Crops of one clip that glides up an octave and a half, exponential in time."""
    time = np.arange(int(8000 * seconds)) / 8000
    phase = 2 * np.pi * np.cumsum(lowest * 3 ** (time / seconds)) / 8000
    wav = 0.05 * sum(np.cos(k * phase) / k for k in range(1, 9))
    (folder / "tones").mkdir()
    soundfile.write(folder / "tones" / "glide.wav", wav, 8000)
    clips = open_corpus(str(folder / "tones"), AUDIO).train
    return PitchedCrops(CropDataset(clips, AUDIO, CROP, batch_size, seed=5), label(clips, AUDIO, folder / "labels.npz"))


@pytest.mark.parametrize("speed", [0.55, 0.8, 1.2])
def test_label_is_the_pitch_of_what_is_played(speed, tmp_path):
    """The tracker on the played crop against the label made of the clip's: a shift of a frame is 0.22 % and more."""
    own, ratios, moved = pitched(tmp_path, 100), [], 0
    played = Played(own, speed, speed)
    for step in range(5):
        before, batch = own[step], played[step]
        for row, found in enumerate(played.speeds(step)):
            if found == 1:
                continue
            moved += 1
            tracked = track(batch.wav[row], 8000, 64)
            inner = tracked.voiced & (batch.pitch.voiced[row].numpy() > 0)
            inner[:5] = inner[-5:] = False
            assert inner.sum() > 80
            ratios.append(batch.pitch.f0[row].numpy()[inner] / tracked.f0[inner])
            assert abs(float((batch.pitch.f0[row] / before.pitch.f0[row]).log().median()) - np.log(speed)) < 0.15
    assert moved > 5
    ratio = np.concatenate(ratios)
    assert abs(np.median(ratio) - 1) < 0.0007
    assert np.quantile(np.abs(ratio - 1), 0.9) < 0.005


def test_mel_is_that_of_what_is_played(tmp_path):
    own = pitched(tmp_path, 100)
    played = Played(own, 0.7, 0.7)
    row = next(row for row, speed in enumerate(played.speeds(0)) if speed == 0.7)
    before, batch = own[0], played[0]
    whole = LogMel(AUDIO)(batch.wav)
    assert batch.mel.shape == before.mel.shape
    torch.testing.assert_close(batch.mel[row, :, 3:-3], whole[row, :, 3:-3])
    assert (batch.mel[row] - before.mel[row]).abs().mean() > 0.3
    # Beyond the crop's ends the clip goes on: no reflection in the first frame.
    assert (batch.mel[row, :, 0] - whole[row, :, 0]).abs().max() > 1e-3


def test_half_of_the_crops_are_left_alone_and_all_follow_seed_and_step(tmp_path):
    own = pitched(tmp_path, 100, batch_size=8)
    played, again = (Played(own, 0.55, 1.2) for _ in range(2))
    speeds = np.array([played.speeds(step) for step in range(200)])
    others = speeds[speeds != 1]
    assert 0.45 < (speeds == 1).mean() < 0.55
    assert 0.55 <= others.min() < 0.56 < 1.19 < others.max() <= 1.2
    for step in (2, 0):
        before, one, two = own[step], played[step], again[step]
        assert torch.equal(one.mel, two.mel)
        assert torch.equal(one.pitch.f0, two.pitch.f0)
        for row, speed in enumerate(played.speeds(step)):
            assert torch.equal(one.wav[row], before.wav[row]) == (speed == 1)
            assert torch.equal(one.mel[row], before.mel[row]) == (speed == 1)
            assert torch.equal(one.pitch.f0[row], before.pitch.f0[row]) == (speed == 1)


def test_what_cannot_be_played_keeps_its_speed(tmp_path):
    """A clip of one crop cannot be faster, and a voice of 45 Hz not slower: 40 Hz is the lowest class."""
    for name, lowest, seconds, speed in (("short", 100, 0.8, 1.2), ("deep", 45, 0.9, 0.6)):
        (tmp_path / name).mkdir()
        own = pitched(tmp_path / name, lowest, seconds)
        played = Played(own, speed, speed)
        assert speed in played.speeds(0)
        assert torch.equal(played[0].wav, own[0].wav)
        assert torch.equal(played[0].pitch.f0, own[0].pitch.f0)


@pytest.mark.parametrize("speeds", [(1.2, 0.55), (0.1, 1.0), (1.0, 6.0), (float("nan"), 1.0)])
def test_wrong_speeds_are_named(speeds):
    with pytest.raises(UserError, match=r"data\.speeds: found \[.*\], expected null, or two numbers"):
        PitchDataConfig(speeds=speeds)
