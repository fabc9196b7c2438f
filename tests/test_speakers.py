"""A voice stays itself: models keep their speakers' names, whatever corpus is open and in whatever order."""

import shutil

import pytest
import torch

from distill import models
from distill.clips import read_clips
from distill.synthesize import main as synthesize
from distill.train import main as distil
from tests.test_train_commands import place, student_arguments, teacher_arguments  # noqa: F401
from wavenet.data import open_corpus
from wavenet.errors import UserError
from wavenet.likelihood import held_out, speaker_index
from wavenet.train import main as teach


@pytest.fixture(scope="module")
def voices(place, tmp_path_factory):  # noqa: F811
    """The six clips dealt to three speakers, two clips each, and a teacher of the three."""
    root = tmp_path_factory.mktemp("voices")
    clips = sorted((place / "corpus" / "wavs").iterdir())
    for number, clip in enumerate(clips):
        folder = root / "corpus" / ("alice", "bob", "carol")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, folder)
    (root / "corpus" / "train.txt").write_text("\n".join(clip.stem for clip in clips[:4]) + "\n")
    (root / "corpus" / "dev.txt").write_text("\n".join(clip.stem for clip in clips[4:]) + "\n")
    (root / "corpus" / "test.txt").write_text("")
    several = ["--model.speakers", "3", "--data.root", str(root / "corpus")]
    assert teach(teacher_arguments(place, "choir", 2, *several)) == 0
    return root


def test_names_are_kept_in_the_model(voices, place):  # noqa: F811
    config = models.load(place / "choir").config
    assert (config.speakers, config.speaker_names) == (3, ["alice", "bob", "carol"])


def test_resume_and_student_keep_the_names(voices, place):  # noqa: F811
    several = ["--model.speakers", "3", "--data.root", str(voices / "corpus")]
    assert teach(teacher_arguments(place, "choir", 3, *several)) == 0
    assert distil(student_arguments(place, "pupils", 1, "--data.root", str(voices / "corpus"), teacher="choir")) == 0
    assert models.load(place / "pupils").config.speaker_names == ["alice", "bob", "carol"]


def test_a_smaller_corpus_does_not_move_the_voices(voices, place, tmp_path):  # noqa: F811
    """Without alice's folder bob is first in the corpus; he must still be the model's bob."""
    teacher = models.load(place / "choir")
    shutil.copytree(voices / "corpus", tmp_path / "fewer")
    shutil.rmtree(tmp_path / "fewer" / "alice")
    whole = open_corpus(str(voices / "corpus"), teacher.config.audio)
    fewer = open_corpus(str(tmp_path / "fewer"), teacher.config.audio)
    assert fewer.speakers == ["bob", "carol"]
    bobs = [[c for c in (*corpus.train, *corpus.dev) if c.speaker == "bob"] for corpus in (whole, fewer)]
    assert held_out(teacher, bobs[0]) == held_out(teacher, bobs[1])


def test_an_unknown_speaker_is_named(voices, place, tmp_path, capsys):  # noqa: F811
    shutil.copytree(voices / "corpus", tmp_path / "corpus")
    (tmp_path / "corpus" / "carol").rename(tmp_path / "corpus" / "dave")
    arguments = student_arguments(place, "never", 1, "--data.root", str(tmp_path / "corpus"), teacher="choir")
    assert distil(arguments) == 2
    error = capsys.readouterr().err
    assert "speaker: found 'dave', expected one that the model knows: alice, bob, carol" in error
    teacher = models.load(place / "choir")
    corpus = open_corpus(str(tmp_path / "corpus"), teacher.config.audio)
    used, named, problems = read_clips([*corpus.train, *corpus.dev], [teacher])
    assert {clip.speaker for clip in used} == {"alice", "bob"}
    assert [int(clip.speaker) for clip in named] == [("alice", "bob").index(clip.speaker) for clip in used]
    assert len(problems) == 2
    assert all("speaker: found 'dave'" in problem for problem in problems)
    with pytest.raises(UserError, match="found 'erin'"):
        speaker_index("erin", ["alice", "bob"])


def test_synthesis_takes_a_name_or_an_index(voices, place, tmp_path, capsys):  # noqa: F811
    recording = str(sorted((place / "corpus" / "wavs").iterdir())[0])
    # A few frames are enough, and a teacher is slow: an .npy mel of five.
    import numpy as np

    np.save(tmp_path / "mel.npy", np.full((20, 5), -6.0, dtype=np.float32))
    for out, speaker in (("name", "carol"), ("index", "2")):
        arguments = [str(place / "choir"), str(tmp_path / "mel.npy"), "--out", str(tmp_path / out)]
        assert synthesize([*arguments, "--speaker", speaker]) == 0
    assert (tmp_path / "name" / "mel.wav").read_bytes() == (tmp_path / "index" / "mel.wav").read_bytes()
    for wrong in ("dave", "3", "-1"):
        assert synthesize([str(place / "choir"), recording, "--out", str(tmp_path / "x"), f"--speaker={wrong}"]) == 2
        assert "a name or 0 to 2: the model has 3 speakers (alice, bob, carol)" in capsys.readouterr().err


def test_another_corpus_does_not_continue_a_run(voices, place, capsys):  # noqa: F811
    several = ["--model.speakers", "3", "--data.root"]
    fewer = voices / "fewer"
    shutil.copytree(voices / "corpus", fewer)
    for clip in sorted((fewer / "alice").iterdir())[:1]:
        clip.unlink()
    assert teach(teacher_arguments(place, "choir", 9, *several, str(fewer))) == 2
    assert "found a run with data.digest = " in capsys.readouterr().err
    moved = voices / "moved"
    shutil.copytree(voices / "corpus", moved)
    assert teach(teacher_arguments(place, "choir", 4, *several, str(moved))) == 0


def test_index_is_the_place_among_the_names():
    assert torch.equal(speaker_index("bob", ["alice", "bob"]), torch.tensor([1]))
