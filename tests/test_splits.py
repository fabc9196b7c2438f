"""Which recordings are held out: by lists, of the corpus or told, and by a seed."""

from pathlib import Path

import pytest

from tests.test_corpora import put
from wavenet.corpora import scan
from wavenet.errors import UserError
from wavenet.splits import assign_splits, split_by_seed


def _splits(*roots: Path, **lists: list[Path]) -> dict[str, str | None]:
    return {r.id: r.split for r in scan(*roots, lists=lists).recordings}


def test_the_corpus_own_lists_are_honoured(tmp_path):
    for name in ("a", "b", "c", "d", "e"):
        put(tmp_path / "one" / f"{name}.wav")
    put(tmp_path / "train.txt", "one/a.wav|some text\none/b\n")
    put(tmp_path / "dev.txt", "c\n./one/zzz.wav\n")
    put(tmp_path / "test.txt", "one/d.wav\r\n")
    found = scan(tmp_path)
    assert {r.path.stem: r.split for r in found.recordings} == {"a": "train", "b": "train", "c": "dev", "d": "test"}
    assert "dev.txt: 1 lines name no recording of this corpus" in found.notes
    assert "1 recordings are in none of train.txt, dev.txt, test.txt: not used" in found.notes
    assert assign_splits(found.recordings, 0.5, 0.5, seed=3) == found.recordings
    (tmp_path / "train.txt").unlink()
    assert {r.path.stem: r.split for r in scan(tmp_path).recordings}["e"] == "train"


def test_contradicting_and_foreign_lists_are_refused(tmp_path):
    for name in ("a", "b"):
        put(tmp_path / f"{name}.wav")
    put(tmp_path / "train.txt", "a\nb\n")
    put(tmp_path / "dev.txt", "b\n")
    with pytest.raises(UserError, match=r"dev\.txt: found b, expected it in one list only \(also in train\.txt\)"):
        scan(tmp_path)
    put(tmp_path / "dev.txt", "q\n")
    with pytest.raises(UserError, match=r"dev\.txt: found no line that names a recording"):
        scan(tmp_path)


def test_splits_are_dealt_by_the_seed_alone():
    ids = [f"clip{i}" for i in range(100)]
    dealt = split_by_seed(ids, 7, 0.1, seed=5)
    assert [list(dealt.values()).count(name) for name in ("train", "dev", "test")] == [83, 7, 10]
    assert split_by_seed(ids[::-1], 7, 0.1, seed=5) == dealt
    assert split_by_seed(ids, 7, 0.1, seed=6) != dealt
    more = split_by_seed([*ids, "new"], 7, 0.1, seed=5)
    assert sum(more[name] != dealt[name] for name in ids) <= 2


def test_sizes_of_splits():
    ids = [f"clip{i}" for i in range(10)]
    counts = [
        list(split_by_seed(ids, dev, test, 0).values()).count("train") for dev, test in ((0.02, 0.02), (0, 0), (3, 0))
    ]
    assert counts == [8, 10, 7]
    assert split_by_seed(["a", "b"], 0.02, 0.02, 0) == {"a": "train", "b": "train"}
    with pytest.raises(UserError, match="found 10 clips, expected fewer than the 10"):
        split_by_seed(ids, 5, 5, 0)
    for size in (-1, 2.5):
        with pytest.raises(UserError, match=f"dev: found {size}, expected a share below 1"):
            split_by_seed(ids, size, 0, 0)


@pytest.fixture
def two(tmp_path):
    """Two corpora, the first with lists of its own, and lists for both beside them."""
    for name in ("voice/wavs/a", "voice/wavs/b", "voice/wavs/c", "takes/wavs/a_2", "takes/wavs/b_2"):
        put(tmp_path / f"{name}.wav")
    put(tmp_path / "voice" / "metadata.csv", "a|A|A\nb|B|B\nc|C|C\n")
    put(tmp_path / "takes" / "metadata.csv", "a_2|A|A\nb_2|B|B\n")
    put(tmp_path / "voice" / "test.txt", "c\n")
    put(tmp_path / "dev.txt", "voice/wavs/b.flac\nelsewhere/wavs/q.flac\n")
    put(tmp_path / "test.txt", "a\n")
    return tmp_path


def test_several_corpora_are_joined_each_with_its_own_lists(two):
    assert _splits(two / "voice", two / "takes") == {"a": "train", "b": "train", "c": "test", "a_2": None, "b_2": None}
    speakers = {r.id: r.speaker for r in scan(two / "voice", two / "takes").recordings}
    assert (speakers["a"], speakers["a_2"]) == ("voice", "takes")


def test_lists_that_are_told_take_the_place_of_the_corpus_own(two):
    roots, lists = (two / "voice", two / "takes"), {"dev": [two / "dev.txt"], "test": [two / "test.txt"]}
    found = scan(*roots, lists=lists)
    # By path from the list's folder, and by id; c, which the corpus lists for testing, is trained on as told.
    assert {r.id: r.split for r in found.recordings} == dict.fromkeys(("c", "a_2", "b_2"), "train") | {
        "a": "test",
        "b": "dev",
    }
    assert "dev.txt: 1 lines name no recording of this corpus" in found.notes
    put(two / "more.txt", "c\n")
    assert _splits(*roots, test=[two / "test.txt", two / "more.txt"])["c"] == "test"
    listed = _splits(*roots, train=[two / "more.txt"], test=[two / "test.txt"])
    assert listed == {"a": "test", "c": "train"}, "a list for training leaves out what no list names"


def test_lists_that_cannot_be_are_refused(two):
    with pytest.raises(UserError, match=r"none\.txt: found no such file, expected a list of recordings"):
        _splits(two / "voice", test=[two / "none.txt"])
    put(two / "again.txt", "b\n")
    both = r"again\.txt: found b, expected it in one list only \(also in dev\.txt\)"
    with pytest.raises(UserError, match=both):
        _splits(two / "voice", dev=[two / "dev.txt"], test=[two / "again.txt"])


def test_a_recording_in_two_corpora_is_named_once(two):
    put(two / "copy" / "wavs" / "a.wav")
    put(two / "copy" / "metadata.csv", "a|A|A\n")
    found = scan(two / "takes", two / "copy", two / "voice")
    assert [r.id for r in found.recordings] == ["a", "a_2", "b", "b_2", "c"]
    assert len(found.problems) == 1
    assert "voice/wavs/a.wav: found the id a a second time" in found.problems[0]
