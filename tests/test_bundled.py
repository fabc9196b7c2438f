"""The speech inside the package: free, small, whole, and disjointly split."""

from importlib import resources
from pathlib import Path

import soundfile

import wavenet
from wavenet.config import AudioConfig
from wavenet.data import load_clip, open_corpus

AUDIO = AudioConfig(sample_rate=24000)


def test_size_and_minutes():
    folder = resources.files(wavenet) / "bundled" / "wavs"
    sizes = [len(path.read_bytes()) for path in folder.iterdir()]
    assert len(sizes) == 48
    assert sum(sizes) <= 4_000_000
    corpus = open_corpus("bundled", AUDIO)
    minutes = {
        name: sum(clip.frames for clip in getattr(corpus, name)) / 24000 / 60 for name in ("train", "dev", "test")
    }
    assert 2.0 <= minutes["train"] <= 2.7
    assert min(minutes["dev"], minutes["test"]) > 0.15


def test_licence_and_source():
    folder = resources.files(wavenet) / "bundled"
    assert "CC0 1.0" in (folder / "LICENSE").read_text(encoding="utf-8")
    source = (folder / "SOURCE.md").read_text(encoding="utf-8")
    assert "rhasspy/dataset-voice-kathleen" in source
    assert "c51cb971036a127359b43c621f26ca5081eab13e" in source


def test_splits_are_disjoint_and_complete():
    corpus = open_corpus("bundled", AUDIO)
    assert [len(corpus.train), len(corpus.dev), len(corpus.test)] == [40, 4, 4]
    clips = corpus.train + corpus.dev + corpus.test
    assert len({clip.id for clip in clips}) == len({clip.text for clip in clips}) == 48
    assert all(clip.text for clip in clips)
    on_disk = {path.name for path in (Path(wavenet.__file__).parent / "bundled" / "wavs").iterdir()}
    assert {clip.path.name for clip in clips} == on_disk
    assert corpus.notes == []


def test_every_clip_is_whole_and_at_a_sane_level():
    corpus = open_corpus("bundled", AUDIO)
    for clip in corpus.train + corpus.dev + corpus.test:
        info = soundfile.info(str(clip.path))
        assert (info.samplerate, info.channels, info.subtype) == (24000, 1, "PCM_16")
        wav = load_clip(clip, AUDIO)
        assert 0 <= clip.frames - len(wav) < AUDIO.hop_length
        assert 0.05 < wav.abs().max() < 0.99


def test_other_rates_just_work():
    for audio in (AudioConfig(), AudioConfig(8000, 256, 256, 64, 40, 0.0, 4000.0)):
        corpus = open_corpus("bundled", audio)
        clip = corpus.dev[0]
        wav = load_clip(clip, audio)
        assert len(wav) % audio.hop_length == 0
        assert 0 <= clip.frames / 24000 - len(wav) / audio.sample_rate < (audio.hop_length + 1) / audio.sample_rate
        assert corpus.notes == [f"48 files at 24000 Hz: resampled to {audio.sample_rate} Hz on loading"]
