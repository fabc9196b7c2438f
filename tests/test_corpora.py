"""Corpus layouts: who speaks, what is said, which split, and what the user is told."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wavenet.audio import READABLE, write_audio
from wavenet.corpora import scan
from wavenet.errors import UserError


def put(path: Path, text: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if text is None:
        soundfile.write(path, np.ones(4, np.int16), 8000)
    else:
        path.write_text(text, encoding="utf-8")


def _table(root: Path) -> list[tuple[str, str, str, str]]:
    return [(r.id, r.path.relative_to(root).as_posix(), r.speaker, r.text) for r in scan(root).recordings]


def test_ljspeech(tmp_path):
    root = tmp_path / "LJSpeech-1.1"
    for name in ("b.flac", "a.wav", "unlisted.wav"):
        put(root / "wavs" / name)
    put(root / "metadata.csv", '\ufeffb|Dr. B said "no|Doctor B said "no\na|Only one text|\r\n\nmissing|x|y\n')
    assert _table(root) == [
        ("a", "wavs/a.wav", "LJSpeech-1.1", "Only one text"),
        ("b", "wavs/b.flac", "LJSpeech-1.1", 'Doctor B said "no'),
        ("missing", "wavs/missing.wav", "LJSpeech-1.1", "y"),
    ]
    assert scan(root).layout == "LJSpeech"
    assert scan(root).notes == ["1 files in wavs/ are not in metadata.csv: not used"]


@pytest.mark.parametrize(("folder", "ending"), [("wav48_silence_trimmed", "_mic1.flac"), ("wav48", ".wav")])
def test_vctk(tmp_path, folder, ending):
    for speaker in ("p226", "p225"):
        put(tmp_path / folder / speaker / f"{speaker}_001{ending}")
        put(tmp_path / "txt" / speaker / f"{speaker}_001.txt", f"I am {speaker}.\n")
    if "mic1" in ending:
        put(tmp_path / folder / "p225" / "p225_001_mic2.flac")
    found = scan(tmp_path)
    assert found.layout == "VCTK"
    assert _table(tmp_path) == [
        ("p225_001", f"{folder}/p225/p225_001{ending}", "p225", "I am p225."),
        ("p226_001", f"{folder}/p226/p226_001{ending}", "p226", "I am p226."),
    ]
    expected = ["1 recordings of the second microphone: not used"] if "mic1" in ending else []
    assert found.notes == expected


def test_libritts_with_and_without_its_subset_folder(tmp_path):
    for subset in ("dev-clean/", ""):
        root = tmp_path / f"at-{subset.strip('/')}"
        folder = root / f"{subset}84/121123"
        put(folder / "84_121123_000007_000001.wav")
        put(folder / "84_121123_000007_000001.normalized.txt", "Maximilian.")
        put(folder / "84_121123_000007_000001.original.txt", "MAXIMILIAN.")
        path = f"{subset}84/121123/84_121123_000007_000001.wav"
        assert _table(root) == [("84_121123_000007_000001", path, "84", "Maximilian.")]


def test_a_tree_of_files(tmp_path):
    for name in (
        "anna/x/1.wav",
        "anna/2.FLAC",
        "ben/1.wav",
        "loose.wav",
        "ben/._1.wav",
        ".hidden/1.wav",
        "ben/notes.md",
    ):
        put(tmp_path / name, "text" if name.endswith(".md") else None)
    put(tmp_path / "ben/1.txt", "  two\nlines ")
    assert _table(tmp_path) == [
        ("anna/2", "anna/2.FLAC", "anna", ""),
        ("anna/x/1", "anna/x/1.wav", "anna", ""),
        ("ben/1", "ben/1.wav", "ben", "two lines"),
        ("loose", "loose.wav", tmp_path.name, ""),
    ]
    assert scan(tmp_path).notes == ["speakers are named after the first folder level"]


def test_a_file_list(tmp_path):
    put(tmp_path / "deep/a.wav")
    put(tmp_path / "lists/voices.txt", f"../deep/a.wav|Hello.|anna\nb.flac|Text\n{tmp_path}/c.wav\n\n")
    found = scan(tmp_path / "lists/voices.txt").recordings
    outside = f"{tmp_path.as_posix()}/c".lstrip("/")
    expected = {
        "deep/a": (tmp_path / "lists/../deep/a.wav", "anna", "Hello."),
        "b": (tmp_path / "lists/b.flac", "voices", "Text"),
        outside: (tmp_path / "c.wav", "voices", ""),
    }
    assert {r.id: (r.path, r.speaker, r.text) for r in found} == expected


def test_an_id_found_twice_is_used_once_and_named(tmp_path):
    put(tmp_path / "a.wav")
    soundfile.write(tmp_path / "a.flac", np.ones(4, np.int16), 8000)
    found = scan(tmp_path)
    assert [r.path.name for r in found.recordings] == ["a.flac"]
    assert len(found.problems) == 1
    assert "a.wav: found the id a a second time" in found.problems[0]


def test_wrong_roots_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: found no such folder"):
        scan(tmp_path / "nowhere")
    with pytest.raises(UserError, match="found no recordings, expected"):
        scan(tmp_path)
    put(tmp_path / "a.wav")
    with pytest.raises(UserError, match=r"a\.wav: found a single recording, expected a corpus folder"):
        scan(tmp_path / "a.wav")
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(UserError, match=r"list\.txt: found bytes that are no UTF-8"):
        scan(tmp_path / "list.txt")


@pytest.mark.skipif(not {".mp3", ".ogg"} <= set(READABLE), reason="this libsndfile reads neither MP3 nor Ogg")
def test_compressed_recordings_are_found_but_beside_their_originals(tmp_path):
    """Names alone: nothing is decoded here."""
    for name in ("eve/a.mp3", "eve/a.wav", "eve/b.mp3", "adam/c.ogg", "adam/c.txt", "adam/notes.pdf"):
        put(tmp_path / name, "Hello.")
    assert _table(tmp_path) == [
        ("adam/c", "adam/c.ogg", "adam", "Hello."),
        ("eve/a", "eve/a.wav", "eve", ""),
        ("eve/b", "eve/b.mp3", "eve", ""),
    ]
    put(tmp_path / "test.txt", "eve/b.mp3\n")
    assert {r.id: r.split for r in scan(tmp_path).recordings}["eve/b"] == "test"


def test_a_file_name_that_is_not_utf8_is_left_out_and_named(tmp_path):
    """As written by old European systems: the bytes of a name need not be text."""
    write_audio(tmp_path / "good.wav", torch.full((800,), 0.1), 8000)
    try:
        (tmp_path / "good.wav").with_name(os.fsdecode(b"caf\xe9.wav")).write_bytes((tmp_path / "good.wav").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    found = scan(tmp_path)
    assert [recording.id for recording in found.recordings] == ["good"]
    (problem,) = found.problems
    problem.encode()
    assert "caf" in problem
    assert "found a file name that is not UTF-8" in problem
