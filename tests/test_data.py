"""Opening corpora and cutting crops: a crop's mel is the whole clip's, and a batch a function of (seed, step) alone."""

import dataclasses

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from wavenet.config import AudioConfig
from wavenet.data import Clip, CropDataset, clip_length, load_clip, open_corpus
from wavenet.errors import UserError
from wavenet.features import LogMel

AUDIO = AudioConfig(8000, 256, 256, 64, 20, 0.0, 4000.0)


@pytest.fixture
def root(tmp_path):
    """Three voices of 0.5, 1 and 3 s at 8 kHz, none a whole number of frames."""
    folder = tmp_path / "voices"
    for place, (name, length) in enumerate({"anna": 4011, "ben": 8001, "cleo": 24063}.items()):
        pcm = np.random.default_rng(place).integers(-9000, 9000, length).astype(np.int16)
        (folder / name).mkdir(parents=True)
        soundfile.write(folder / name / "1.flac", pcm, 8000)
    (folder / "train.txt").write_text("anna/1\nben/1\ncleo/1\n")
    return folder


def _whole_mel(clip: Clip, audio: AudioConfig) -> torch.Tensor:
    return LogMel(audio)(load_clip(clip, audio)[None])[0]


def _equal(a, b) -> bool:
    return torch.equal(a.wav, b.wav) and torch.equal(a.mel, b.mel) and torch.equal(a.speaker, b.speaker)


def test_clips_are_cut_to_whole_frames_and_never_padded(root):
    corpus = open_corpus(str(root), AUDIO)
    assert [clip_length(clip, AUDIO) for clip in corpus.train] == [4011 // 64 * 64, 8000, 24063 // 64 * 64]
    for clip in corpus.train:
        pcm, _ = soundfile.read(clip.path, dtype="float32")
        wav = load_clip(clip, AUDIO)
        np.testing.assert_array_equal(wav.numpy(), pcm[: clip_length(clip, AUDIO)])
    assert corpus.speakers == ["anna", "ben", "cleo"]
    assert corpus.notes == ["speakers are named after the first folder level", "no dev clips", "no test clips"]


def test_crops_of_what_is_compressed_with_loss_are_the_clips_to_the_bit(tmp_path):
    """A decoder that begins in the middle gives other samples there: such files are read whole."""
    noise = 0.2 * np.random.default_rng(0).standard_normal(60000)
    soundfile.write(tmp_path / "noise.ogg", noise, 8000)
    (tmp_path / "list.txt").write_text("noise.ogg|words\n")
    corpus = open_corpus(str(tmp_path / "list.txt"), AUDIO)
    assert "1 files: compressed with loss (OGG)" in corpus.notes
    whole = load_clip(corpus.train[0], AUDIO)
    dataset = CropDataset(corpus.train, AUDIO, 512, 8, seed=1)
    for step in range(20):
        for wav, (_, start) in zip(dataset[step].wav, dataset.choose(step), strict=True):
            assert torch.equal(wav, whole[start : start + 512])


@pytest.mark.parametrize("rate", [8000, 11025], ids=["seeking", "resampling"])
def test_crops_are_the_clip_and_their_mels_the_clips_mel(root, rate):
    audio = dataclasses.replace(AUDIO, sample_rate=rate)
    corpus = open_corpus(str(root), audio)
    dataset = CropDataset(corpus.train, audio, 512, 8, seed=1, speakers=corpus.speakers)
    places = set()
    for step in range(20):
        batch = dataset[step]
        assert batch.speaker.dtype == torch.int64
        for row, (place, start) in enumerate(dataset.choose(step)):
            clip, frame = dataset.clips[place], start // audio.hop_length
            assert corpus.speakers[batch.speaker[row]] == clip.speaker
            assert torch.equal(batch.wav[row], load_clip(clip, audio)[start : start + 512])
            torch.testing.assert_close(batch.mel[row], _whole_mel(clip, audio)[:, frame : frame + 8], atol=1e-5, rtol=0)
            places.add(place)
    assert places == {0, 1, 2}


def test_mels_are_right_at_both_ends_of_a_file(root, monkeypatch):
    clip = open_corpus(str(root), AUDIO).train[0]
    for crop_length in (64, 512, clip_length(clip, AUDIO)):
        dataset = CropDataset([clip], AUDIO, crop_length, 4, seed=0)
        last = clip_length(clip, AUDIO) - crop_length
        starts = [0, min(64, last), max(0, last - 64), last]
        monkeypatch.setattr(dataset, "choose", lambda step, starts=starts: [(0, start) for start in starts])
        batch = dataset[0]
        whole = _whole_mel(clip, AUDIO)
        for row, start in enumerate(starts):
            expected = whole[:, start // 64 : (start + crop_length) // 64]
            torch.testing.assert_close(batch.mel[row], expected, atol=1e-5, rtol=0)
        assert batch.speaker is None


def test_batches_are_a_function_of_seed_and_step(root):
    corpus = open_corpus(str(root), AUDIO)

    def dataset(seed: int) -> CropDataset:
        return CropDataset(corpus.train, AUDIO, 512, 4, seed, corpus.speakers)

    first, second = dataset(3), dataset(3)
    ahead = first[7]
    for step in range(7):
        second[step]
    assert _equal(ahead, second[7])
    assert not torch.equal(first[8].wav, ahead.wav)
    assert not torch.equal(dataset(4)[7].wav, ahead.wav)
    assert not torch.equal(dataset(4)[7].wav, first[8].wav)


@pytest.mark.parametrize("rate", [8000, 11025], ids=["seeking", "resampling"])
def test_workers_change_nothing(root, rate):
    audio = dataclasses.replace(AUDIO, sample_rate=rate)
    corpus = open_corpus(str(root), audio)
    dataset = CropDataset(corpus.train, audio, 512, 4, 0, corpus.speakers)
    steps = range(5, 11)
    loader = DataLoader(dataset, batch_size=None, sampler=steps, num_workers=2)
    for step, batch in zip(steps, loader, strict=True):
        assert _equal(batch, dataset[step])


def test_clips_are_drawn_by_duration_and_starts_uniformly(root):
    corpus = open_corpus(str(root), AUDIO)
    dataset = CropDataset(corpus.train, AUDIO, 512, 50, 0)
    drawn = [crop for step in range(200) for crop in dataset.choose(step)]
    share = np.bincount([place for place, _ in drawn]) / len(drawn)
    lengths = np.array(dataset.lengths)
    np.testing.assert_allclose(share, lengths / lengths.sum(), atol=4 * 0.5 / len(drawn) ** 0.5)
    starts = np.array([start for place, start in drawn if place == 0]) // 64
    assert set(starts) == set(range((dataset.lengths[0] - 512) // 64 + 1))


def test_clips_shorter_than_a_crop_are_left_out_with_a_note(root):
    clips = open_corpus(str(root), AUDIO).train
    dataset = CropDataset(clips, AUDIO, 64 * 120, 4, 0)
    assert [clip.speaker for clip in dataset.clips] == ["ben", "cleo"]
    assert dataset.notes == ["1 of 3 clips are shorter than 7680 samples: not used"]
    with pytest.raises(UserError, match=r"train\.crop_length: found 64000, expected at most the longest of 3 clips"):
        CropDataset(clips, AUDIO, 64000, 4, 0)


def test_the_cache_of_resampled_clips_is_bounded(root, monkeypatch):
    monkeypatch.setattr("wavenet.data._CACHE_SAMPLES", 16000)
    audio = dataclasses.replace(AUDIO, sample_rate=11025)
    corpus = open_corpus(str(root), audio)
    dataset, fresh = (CropDataset(corpus.train, audio, 512, 8, 0, corpus.speakers) for _ in range(2))
    for step in range(10):
        dataset[step]
        held = [len(wav) for wav in dataset._resampled.values()]
        assert sum(held) <= 16000 or len(held) == 1
    assert _equal(dataset[3], fresh[3])


def test_settings_that_cannot_work_are_named(root):
    clips = open_corpus(str(root), AUDIO).train
    with pytest.raises(
        UserError, match=r"train\.crop_length: found 100, expected a multiple of audio\.hop_length = 64"
    ):
        CropDataset(clips, AUDIO, 100, 4, 0)
    with pytest.raises(UserError, match=r"train\.seed: found -1"):
        CropDataset(clips, AUDIO, 512, 4, -1)
    with pytest.raises(UserError, match="speakers: found 'cleo'"):
        CropDataset(clips, AUDIO, 512, 4, 0, ["anna", "ben"])
    with pytest.raises(UserError, match="nowhere: found no such folder"):
        open_corpus(str(root / "nowhere"), AUDIO)


def test_broken_files_of_a_raw_corpus_are_left_out_and_named(root):
    (root / "train.txt").unlink()
    (root / "anna" / "2.wav").write_bytes(b"")
    (root / "ben" / "2.wav").write_text("not sound")
    soundfile.write(root / "ben" / "3.wav", np.ones((8000, 2), np.int16), 16000)
    soundfile.write(root / "ben" / "4.wav", np.ones(80, np.int16), 8000)
    corpus = open_corpus(str(root), AUDIO)
    assert len(corpus.train) + len(corpus.dev) + len(corpus.test) == 4
    text = "\n".join(corpus.notes)
    assert "anna/2.wav: found an empty file" in text
    assert "ben/2.wav: found an unreadable file" in text
    assert "1 files: stereo mixed down" in text
    assert "1 of 5 clips are shorter than 128 samples: not used" in text
    assert "1 files at 16000 Hz: resampled to 8000 Hz on loading" in text


def test_a_corpus_without_anything_usable_is_refused(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(UserError, match="found no clip to train on"):
        open_corpus(str(tmp_path), AUDIO)


def test_a_file_that_changes_after_opening_is_named(root):
    clip = open_corpus(str(root), AUDIO).train[0]
    soundfile.write(clip.path, np.ones(2000, np.int16), 8000)
    with pytest.raises(UserError, match=r"1\.flac: found 2000 samples at 8000 Hz, expected 4011"):
        load_clip(clip, AUDIO)
