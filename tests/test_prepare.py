"""wavenet-prepare: whole batches with broken files in them, resuming, refusing, and what it hands to the training."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from wavenet.audio import read_audio
from wavenet.config import AudioConfig
from wavenet.data import CropDataset, open_corpus
from wavenet.manifest import read_metadata
from wavenet.prepare import main

AUDIO = AudioConfig(8000, 256, 256, 64, 20, 0.0, 4000.0)
SETTINGS = [
    f"--audio.{name}={value}"
    for name, value in (
        ("sample_rate", 8000),
        ("n_fft", 256),
        ("win_length", 256),
        ("hop_length", 64),
        ("n_mels", 20),
        ("f_max", 4000),
    )
]


def _speech(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9000, 9000, length).astype(np.int16)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for place in range(10):
        soundfile.write(folder / f"clip{place}.wav", _speech(5000 + place, place), 8000)
    return folder


def _prepare(root: Path, out: Path, *options: str) -> int:
    return main(["--root", str(root), "--out", str(out), *SETTINGS, *options])


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "manifest" not in path.name)
    return {path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_a_sound_corpus(root, tmp_path, capsys):
    out = tmp_path / "out"
    assert _prepare(root, out, "--dev", "2", "--test", "0.1") == 0
    assert capsys.readouterr().err == ""
    rows = (out / "manifest.csv").read_text().splitlines()
    assert rows[0] == "id,path,speaker,split,frames,sample_rate,text"
    assert rows[1].startswith("clip0,wavs/clip0.flac,corpus,")
    corpus = open_corpus(str(out), AUDIO)
    assert [len(corpus.train), len(corpus.dev), len(corpus.test)] == [7, 2, 1]
    assert corpus.notes == []
    for clip in corpus.train:
        assert torch.equal(read_audio(clip.path)[0], read_audio(root / f"{clip.id}.wav")[0])
    metadata = json.loads((out / "manifest.json").read_text())
    assert metadata["counts"] == {"train": 7, "dev": 2, "test": 1, "speakers": 1, "left_out": 0}
    assert metadata["source"]["name"] == "corpus"
    assert metadata["seed"] == 0
    assert str(tmp_path) not in (out / "manifest.json").read_text()


def test_every_fault_is_named_and_the_rest_done(root, tmp_path, capsys):
    soundfile.write(root / "stereo.wav", np.stack([_speech(9000, 1)] * 2, axis=1), 8000)
    soundfile.write(root / "rate.flac", _speech(24000, 2), 24000)
    touched = _speech(9000, 3)
    touched[:3] = 32767
    soundfile.write(root / "touched.wav", touched, 8000)
    touched[:900] = 32767
    soundfile.write(root / "clipped.wav", touched, 8000)
    soundfile.write(root / "silent.wav", np.full(9000, 3, np.int16), 8000)
    soundfile.write(root / "short.wav", _speech(3000, 4), 8000)
    soundfile.write(root / "nan.wav", np.full(9000, np.nan, np.float32), 8000, subtype="FLOAT")
    (root / "empty.wav").write_bytes(b"")
    (root / "text.flac").write_text("not sound")
    whole = (root / "clip0.wav").read_bytes()
    (root / "half.wav").write_bytes(whole[: len(whole) // 2])
    names = [path.name for path in sorted(root.iterdir())] + ["absent.wav"]
    (tmp_path / "list.txt").write_text("".join(f"corpus/{name}|Text of {name}|someone\n" for name in names))
    out = tmp_path / "out"
    assert _prepare(tmp_path / "list.txt", out) == 1
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    expected = {
        "absent.wav": "found no such file, expected",
        "clipped.wav": "found 10.0% of its samples clipped, expected at most 1.0%",
        "empty.wav": "found an empty file",
        "half.wav": "found a truncated file, expected",
        "nan.wav": "found NaN or infinite samples, expected",
        "short.wav": "found 0.375 s, expected at least 0.500 s",
        "silent.wav": "found silence (peak 9.2e-05), expected a peak of at least 1e-03",
        "text.flac": "found an unreadable file",
    }
    for name, reason in expected.items():
        (line,) = [line for line in lines if name in line]
        assert line.startswith("left out: ")
        assert reason in line
    (line,) = [line for line in lines if "touched.wav" in line]
    assert line.startswith("kept: ")
    assert "clipped: 3 of 9000 samples at full scale" in line
    assert len(lines) == len(expected) + 1
    for said in ("1 files: stereo mixed down", "1 files: resampled 24000 -> 8000 Hz", "13 clips", "8 left out"):
        assert said in printed.out
    corpus = open_corpus(str(out), AUDIO)
    clips = {clip.id: clip for clip in corpus.train + corpus.dev + corpus.test}
    assert set(clips) == {f"corpus/{name}" for name in ("stereo", "rate", "touched", *(f"clip{i}" for i in range(10)))}
    assert clips["corpus/rate"].frames == 8000
    assert clips["corpus/rate"].text == "Text of rate.flac"
    assert corpus.speakers == ["someone"]


def test_an_interrupted_run_is_taken_up_and_keeps_what_is_whole(root, tmp_path, monkeypatch):
    out, straight = tmp_path / "out", tmp_path / "straight"
    assert _prepare(root, straight) == 0
    import wavenet.prepare as prepare

    write, calls = prepare.write_audio, []

    def stop_after_four(*arguments):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(write(*arguments))
        return calls[-1]

    monkeypatch.setattr(prepare, "write_audio", stop_after_four)
    assert _prepare(root, out) == 130
    monkeypatch.setattr(prepare, "write_audio", write)
    before = _state(out)
    assert len(before) == 4
    damaged = out / "wavs/clip1.flac"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    assert _prepare(root, out) == 0
    after = _state(out)
    assert {name: after[name] for name in before if "clip1" not in name} == {
        name: state for name, state in before.items() if "clip1" not in name
    }
    for path in straight.rglob("*.*"):
        assert (out / path.relative_to(straight)).read_bytes() == path.read_bytes()
    assert _prepare(root, out) == 0
    assert _state(out) == after


def test_an_unfinished_folder_is_not_trained_on(root, tmp_path, monkeypatch):
    monkeypatch.setattr("wavenet.prepare.write_manifest", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    assert _prepare(root, tmp_path / "out") == 130
    with pytest.raises(ValueError, match="found an unfinished preparation, expected"):
        open_corpus(str(tmp_path / "out"), AUDIO)
    monkeypatch.undo()
    assert _prepare(root, tmp_path / "out", "--seed", "8") == 0
    assert len(open_corpus(str(tmp_path / "out"), AUDIO).train) == 8


def test_user_mistakes_are_one_line_and_status_2(root, tmp_path, capsys):
    assert _prepare(root, tmp_path / "out") == 0
    other = tmp_path / "other"
    other.mkdir()
    soundfile.write(other / "x.wav", _speech(9000, 5), 8000)
    before = _state(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.wav").write_bytes(b"")
    capsys.readouterr()
    mistakes = [
        ((tmp_path / "nowhere", tmp_path / "new"), "nowhere: found no such folder"),
        ((other, tmp_path / "out"), "out: found another corpus"),
        ((root, tmp_path / "out", "--seed", "1"), "out: found another corpus or other settings there (seed 0)"),
        ((root, other), "other: found a folder with other files"),
        ((root, other / "x.wav"), "x.wav: found a file"),
        ((root, root / "prepared"), "prepared: found a folder inside the corpus"),
        ((tmp_path / "out", tmp_path / "new"), "out: found a prepared corpus"),
        ((root, tmp_path / "new", "--dev", "10"), "dev + test: found 11 clips"),
        ((root, tmp_path / "new", "--seed", "-1"), "seed: found -1"),
        ((root, tmp_path / "new", "--max_clipped", "7"), "max_clipped: found 7.0"),
        ((root, tmp_path / "new", "--audio.hop_length", "65"), "audio.hop_length: found 65"),
        ((root, tmp_path / "new", "--colour", "red"), "--colour"),
        ((tmp_path / "broken", tmp_path / "void"), "broken: found no usable recording among 1"),
    ]
    for arguments, message in mistakes:
        assert _prepare(*arguments) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("wavenet-prepare: ")
        assert message in line
    assert {name: state for name, state in _state(tmp_path).items() if name in before} == before
    assert not (tmp_path / "new").exists()


def test_several_roots_with_lists_of_their_own(root, tmp_path, capsys):
    other, out = tmp_path / "other", tmp_path / "out"
    other.mkdir()
    soundfile.write(other / "take.wav", _speech(6000, 50), 8000)
    (tmp_path / "dev.txt").write_text("corpus/clip1.flac\nclip2\n")
    (tmp_path / "test.txt").write_text("clip3\n")

    def prepare(*options: str) -> int:
        return main(["--root", str(root), str(other), "--out", str(out), *SETTINGS, *options])

    lists = ("--dev_list", str(tmp_path / "dev.txt"), "--test_list", str(tmp_path / "test.txt"))
    assert prepare(*lists, "--speaker", "anna") == 0
    corpus = open_corpus(str(out), AUDIO)
    assert [[clip.id for clip in clips] for clips in (corpus.dev, corpus.test)] == [["clip1", "clip2"], ["clip3"]]
    assert len(corpus.train) == 8
    assert "take" in {clip.id for clip in corpus.train}
    assert corpus.speakers == ["anna"]
    assert read_metadata(out)["source"]["name"] == "corpus + other"
    capsys.readouterr()
    assert prepare(*lists) == 0, "the same again finds all there"
    (tmp_path / "test.txt").write_text("clip4\n")
    assert prepare(*lists) == 2, "what was held out is not trained on by changing a list"
    assert "found another corpus or other settings there (lists" in capsys.readouterr().err
    assert prepare("--test_list", str(tmp_path / "gone.txt")) == 2
    assert "gone.txt: found no such file" in capsys.readouterr().err


def test_a_changed_recording_does_not_overwrite(root, tmp_path, capsys):
    out = tmp_path / "out"
    assert _prepare(root, out) == 0
    before = _state(out)
    soundfile.write(root / "clip3.wav", _speech(7000, 9), 8000)
    assert _prepare(root, out) == 1
    assert (
        "clip3.flac: found 5003 samples of an earlier recording, expected 7000 (remove it)" in capsys.readouterr().err
    )
    assert _state(out) == before


def test_mels_on_disk_are_used_when_they_fit(root, tmp_path):
    out = tmp_path / "out"
    assert _prepare(root, out, "--cache-mel") == 0
    cached = open_corpus(str(out), AUDIO).train
    assert all(clip.mel is not None for clip in cached)
    assert _prepare(root, tmp_path / "plain") == 0
    plain = open_corpus(str(tmp_path / "plain"), AUDIO).train
    assert all(clip.mel is None for clip in plain)
    with_mels, without = (CropDataset(clips, AUDIO, 512, 4, 0) for clips in (cached, plain))
    for step in range(5):
        assert torch.equal(with_mels[step].wav, without[step].wav)
        torch.testing.assert_close(with_mels[step].mel, without[step].mel, atol=1e-5, rtol=0)
    marked = np.load(cached[0].mel)
    for clip in cached:
        np.save(clip.mel, np.full_like(np.load(clip.mel), 7.0))
    assert (with_mels[0].mel == 7).all()
    np.save(cached[0].mel, marked[:, :-1])
    alone = CropDataset(cached[:1], AUDIO, 512, 4, 0)
    with pytest.raises(ValueError, match=rf"{cached[0].id}\.npy: found shape"):
        alone[0]
    other = AudioConfig(8000, 256, 256, 64, 21, 0.0, 4000.0)
    corpus = open_corpus(str(out), other)
    assert corpus.notes == ["the prepared mels were made with other audio settings: not used"]
    assert CropDataset(corpus.train, other, 512, 4, 0)[0].mel.shape[1] == 21


def test_split_lists_of_the_corpus_win_over_the_seed(root, tmp_path):
    (root / "dev.txt").write_text("clip4\n")
    (root / "test.txt").write_text("clip5.wav\n")
    assert _prepare(root, tmp_path / "out", "--seed", "9", "--dev", "5") == 0
    corpus = open_corpus(str(tmp_path / "out"), AUDIO)
    assert ([clip.id for clip in corpus.dev], [clip.id for clip in corpus.test]) == (["clip4"], ["clip5"])
    assert len(corpus.train) == 8


def test_a_raw_corpus_is_split_as_its_preparation(root, tmp_path):
    assert _prepare(root, tmp_path / "out") == 0
    raw, prepared = open_corpus(str(root), AUDIO), open_corpus(str(tmp_path / "out"), AUDIO)
    for name in ("train", "dev", "test"):
        assert [clip.id for clip in getattr(raw, name)] == [clip.id for clip in getattr(prepared, name)]


def test_damaged_prepared_folders_are_named(root, tmp_path):
    out = tmp_path / "out"
    assert _prepare(root, out) == 0
    manifest = (out / "manifest.csv").read_text()
    (out / "manifest.csv").write_text(manifest.replace("5003", "many"))
    with pytest.raises(ValueError, match=r"manifest\.csv: found a damaged row for clip3, expected"):
        open_corpus(str(out), AUDIO)
    (out / "manifest.csv").write_text("file,text\n")
    with pytest.raises(ValueError, match=r"manifest\.csv: found columns"):
        open_corpus(str(out), AUDIO)
    (out / "manifest.csv").write_text(manifest)
    (out / "wavs" / "clip2.flac").unlink()
    with pytest.raises(ValueError, match=r"clip2\.flac: found no such file, expected it by"):
        open_corpus(str(out), AUDIO)


def test_the_script_is_the_command(root, tmp_path):
    project = Path(__file__).parents[1]
    command = [
        sys.executable,
        str(project / "scripts/prepare_data.py"),
        "--root",
        str(root),
        "--out",
        str(tmp_path / "out"),
    ]
    environment = os.environ | {"PYTHONPATH": str(project)}
    done = subprocess.run([*command, *SETTINGS], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "10 clips" in done.stdout
    assert len(open_corpus(str(tmp_path / "out"), AUDIO).train) == 8
