"""Synthesis by the command: what it accepts, what it refuses in one line, and that the noise is the item's own."""

import shutil
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from distill import models, synthesize
from distill.inputs import load_mel, read_mel
from distill.projection import STEPS, project
from distill.synthesize import main
from tests.conftest import AUDIO, random_mel, random_wav, small_student, small_teacher
from wavenet import checkpoint
from wavenet.arguments import to_dict
from wavenet.config import AudioConfig
from wavenet.data import load_clip, open_corpus
from wavenet.features import LogMel

RATE = AUDIO.sample_rate


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A teacher, a student and a student of three voices, quiet enough not to clip."""
    place = tmp_path_factory.mktemp("runs")
    nets = {"teacher": small_teacher(), "student": small_student(), "voices": small_student(speakers=3)}
    for name, model in nets.items():
        model = model.float()
        (place / name).mkdir()
        kind = "teacher" if name == "teacher" else "student"
        config = to_dict(model.config) | {"gain": 200.0}
        path = place / name / checkpoint.FILE_NAME
        checkpoint.save(path, kind=kind, config=config, model_state=model.state_dict())
    return place


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty folder to work in, with a recording of 4 frames and a bit, and two mels."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("speech.wav", random_wav(1, 5)[0, :70].numpy(), RATE, subtype="PCM_16")
    np.save("one.npy", random_mel(1, 3, seed=1)[0].numpy())
    np.save("two.npy", random_mel(1, 3, seed=2)[0].numpy())
    return tmp_path


def run(runs, *arguments, net="student", out="out"):
    return main([str(runs / net), *arguments, "--out", out])


def read(path):
    return soundfile.read(path, dtype="int16")[0]


@pytest.mark.parametrize(("net", "extra"), [("student", ()), ("teacher", ()), ("teacher", ("--method", "naive"))])
def test_recordings_and_mels_become_16_bit_wav_of_whole_frames(runs, work, capsys, net, extra):
    assert run(runs, "speech.wav", "one.npy", *extra, net=net) == 0
    for name, frames in (("speech", 4), ("one", 3)):
        info = soundfile.info(f"out/{name}.wav")
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        assert info.frames == frames * AUDIO.hop_length
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("x real time" in line for line in lines)


def test_the_file_holds_what_the_model_says(runs, work):
    assert run(runs, "speech.wav", "--seed", "4", "--temperature", "0.5", "--projection", "0") == 0
    model = models.load(runs / "student")
    wav = torch.from_numpy(soundfile.read("speech.wav", dtype="float32")[0])[None, :64]
    generator = torch.Generator().manual_seed(zlib.crc32(b"4 speech"))
    expected = model.sample(model.log_mel(wav), temperature=0.5, generator=generator)[0]
    assert np.abs(read("out/speech.wav") - expected.numpy() * 32768).max() <= 0.51


def test_a_recording_is_projected_and_a_mel_is_not_unless_told(runs, work):
    model = models.load(runs / "student")
    wav = torch.from_numpy(soundfile.read("speech.wav", dtype="float32")[0])[None, :64]
    mel = model.log_mel(wav)
    np.save("mel.npy", mel[0].numpy())

    def expected(stem, steps):
        generator = torch.Generator().manual_seed(zlib.crc32(f"0 {stem}".encode()))
        made = project(model.sample(mel, generator=generator), mel, AUDIO, steps)[0]
        return (made.numpy() * 32768).clip(-32768, 32767)

    for item, steps, extra in (
        ("speech.wav", STEPS, ()),
        ("mel.npy", 0, ()),
        ("speech.wav", 0, ("--projection", "0")),
        ("mel.npy", 3, ("--projection", "3")),
    ):
        assert run(runs, item, *extra, "--overwrite") == 0
        stem = item.split(".")[0]
        # Rounding to 16 bits, and what a projection makes of the last bits in which engines differ.
        assert np.abs(read(f"out/{stem}.wav") - expected(stem, steps)).max() <= 0.6


def test_a_chosen_voice_is_not_projected_unless_told(runs, work):
    """The recording may be another's: its mel is what the student is to speak, and not how."""
    for out, extra in (("a", ()), ("b", ("--projection", "0")), ("c", ("--projection", "4"))):
        assert run(runs, "speech.wav", "--speaker", "1", *extra, net="voices", out=out) == 0
    assert (read("a/speech.wav") == read("b/speech.wav")).all()
    assert (read("a/speech.wav") != read("c/speech.wav")).any()


def test_methods_of_a_teacher_agree(runs, work):
    assert run(runs, "one.npy", net="teacher", out="cached") == 0
    assert run(runs, "one.npy", "--method", "naive", net="teacher", out="naive") == 0
    assert np.abs(read("cached/one.wav").astype(int) - read("naive/one.wav")).max() <= 1


def test_seed_decides_and_neither_order_nor_company_matters(runs, work):
    assert run(runs, "one.npy", "two.npy", out="a") == 0
    assert run(runs, "two.npy", "one.npy", out="b") == 0
    assert run(runs, "one.npy", out="c") == 0
    assert run(runs, "one.npy", "--seed", "1", out="d") == 0
    assert (read("a/one.wav") == read("b/one.wav")).all()
    assert (read("a/two.wav") == read("b/two.wav")).all()
    assert (read("a/one.wav") == read("c/one.wav")).all()
    assert (read("a/one.wav") != read("d/one.wav")).any()


def test_items_of_one_mel_and_two_names_get_their_own_noise(runs, work):
    np.save("other.npy", np.load("one.npy"))
    assert run(runs, "one.npy", "other.npy") == 0
    assert (read("out/one.wav") != read("out/other.wav")).any()


def test_both_orientations_of_a_mel_agree(runs, work):
    (work / "turned").mkdir()
    np.save("turned/one.npy", np.load("one.npy").T)
    assert run(runs, "one.npy", out="a") == 0
    assert run(runs, "turned/one.npy", out="b") == 0
    assert (read("a/one.wav") == read("b/one.wav")).all()


def test_a_square_mel_is_bands_by_frames(work):
    square = random_mel(1, AUDIO.n_mels)[0].float()
    np.save("square.npy", square.numpy())
    assert torch.equal(load_mel(work / "square.npy", AUDIO.n_mels)[0], square)


def test_a_folder_is_its_readable_files_in_order(runs, work, capsys):
    (work / "notes.txt").write_text("no input")
    (work / ".hidden.npy").write_text("no input")
    assert run(runs, ".") == 0
    names = [line.split(".wav")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["out/one", "out/speech", "out/two"]


def test_what_is_compressed_with_loss_is_read_and_said(runs, work, capsys):
    for name in ("a.mp3", "b.ogg", "c.opus"):
        kind = {"format": "OGG", "subtype": "OPUS"} if name == "c.opus" else {}
        soundfile.write(name, 1e-3 * random_wav(1, 5)[0, :70].numpy(), RATE, **kind)
    assert run(runs, ".", "--projection", "0") == 0
    error = capsys.readouterr().err
    for name in ("a.mp3: compressed with loss (MP3)", "b.ogg: compressed with loss (OGG)", "c.opus: compressed with"):
        assert f"distill-synthesize: {name}" in error
        assert len(read(f"out/{name[0]}.wav")) == 4 * AUDIO.hop_length


def test_bundled_is_the_test_clips_unless_there_is_such_a_file(runs, work, capsys):
    assert run(runs, "bundled", "--projection", "0") == 0
    said = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()]
    names = ("b0107", "b0351", "b0458", "b0523")
    assert said == [f"out/kathleen_{name}.wav" for name in names]
    (work / "bundled").mkdir()
    shutil.copy("one.npy", "bundled/mine.npy")
    assert run(runs, "bundled") == 0
    assert capsys.readouterr().out.startswith("out/mine.wav")


def test_folders_are_searched_to_the_bottom_and_never_read_back_their_own_output(runs, work):
    (work / "deep" / "er").mkdir(parents=True)
    (work / "deep" / ".cache").mkdir()
    np.save("deep/er/three.npy", np.load("one.npy"))
    np.save("deep/.cache/four.npy", np.load("one.npy"))
    for _ in range(2):
        assert run(runs, ".", "--overwrite", out="deep/out") == 0
        made = {path.name for path in (work / "deep" / "out").rglob("*")}
        assert made == {"one.wav", "speech.wav", "three.wav", "two.wav"}


def test_inputs_of_one_stem_in_two_folders_keep_their_folders(runs, work, capsys):
    for folder, seed in (("a", 1), ("b/c", 2)):
        (work / "in" / folder).mkdir(parents=True)
        np.save(f"in/{folder}/x.npy", random_mel(1, 3, seed=seed)[0].numpy())
    np.save("in/alone.npy", np.load("one.npy"))
    assert run(runs, "in") == 0
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 2
    assert "in/a/x.npy: goes to out/a/x.wav, another input has its stem" in error[0]
    assert "in/b/c/x.npy: goes to out/b/c/x.wav" in error[1]
    made = {path.relative_to(work / "out").as_posix() for path in (work / "out").rglob("*.wav")}
    assert made == {"alone.wav", "a/x.wav", "b/c/x.wav"}
    # The noise is the stem's: alone and in company the same audio.
    assert run(runs, "in/b/c/x.npy", out="single") == 0
    assert (read("single/x.wav") == read("out/b/c/x.wav")).all()
    assert (read("out/a/x.wav") != read("out/b/c/x.wav")).any()


def test_a_file_in_the_way_of_a_folder_fails_one_item(runs, work, capsys):
    for folder in ("a", "b"):
        (work / "in" / folder).mkdir(parents=True)
        np.save(f"in/{folder}/x.npy", np.load("one.npy"))
    (work / "out").mkdir()
    (work / "out" / "a").write_text("precious")
    assert run(runs, "in") == 1
    assert "in/a/x.npy: found a file in the way of out/a, expected a folder" in capsys.readouterr().err
    assert (work / "out" / "a").read_text() == "precious"
    assert len(read("out/b/x.wav")) == 3 * AUDIO.hop_length


def make_bad(work):
    """Every input that cannot be read, by name, and words of its complaint."""
    np.save("bands.npy", np.zeros((7, 9), np.float32))
    np.save("cube.npy", np.zeros((2, 6, 9), np.float32))
    np.save("empty.npy", np.zeros((6, 0), np.float32))
    np.save("whole.npy", np.zeros((6, 9), np.int64))
    np.save("nan.npy", np.full((6, 9), np.nan, np.float32))
    np.save("pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with (work / "archive.npy").open("wb") as file:
        np.savez(file, a=np.zeros((6, 9)))
    (work / "cut.npy").write_bytes((work / "one.npy").read_bytes()[:-8])
    (work / "nothing.npy").write_bytes(b"")
    (work / "text.npy").write_text("not an array")
    (work / "text.wav").write_text("not a recording")
    (work / "song.pdf").write_text("")
    torch.save(torch.zeros(6, 9), "mel.pt")
    (work / "void").mkdir()
    (work / "void" / ".hidden.npy").write_bytes((work / "one.npy").read_bytes())
    soundfile.write("short.wav", np.zeros(20), RATE)
    return {
        "bands.npy": "found shape (7, 9), expected a float array of shape (6, F) or (F, 6)",
        "cube.npy": "found shape (2, 6, 9), a batch, expected a float array of shape (6, F) or (F, 6): save each",
        "empty.npy": "found shape (6, 0)",
        "whole.npy": "found dtype int64",
        "nan.npy": "found NaN or infinite values",
        "pickle.npy": "truncated or foreign",
        "archive.npy": "an archive of arrays",
        "cut.npy": "truncated or foreign",
        "nothing.npy": "an empty file",
        "text.npy": "truncated or foreign",
        "text.wav": "unreadable",
        "song.pdf": "found suffix '.pdf'",
        "mel.pt": "found a file of torch's, expected a mel in .npy: save it with numpy.save",
        "void": "a folder without such files",
        "absent.npy": "no such file",
        "absent.wav": "no such file",
        "short.wav": "found 20 samples at 8000 Hz, expected at least 32",
    }


def test_every_bad_item_has_its_line_and_the_rest_is_done(runs, work, capsys):
    bad = make_bad(work)
    assert run(runs, "one.npy", *bad, "two.npy") == 1
    lines = capsys.readouterr().err.splitlines()
    for name, words in bad.items():
        (line,) = [line for line in lines if line.startswith(f"distill-synthesize: {name}: ")]
        assert words in line
    assert len(lines) == len(bad)
    assert sorted(path.name for path in (work / "out").iterdir()) == ["one.wav", "two.wav"]


def test_an_item_that_fails_alone_is_status_two(runs, work, capsys):
    for name, words in make_bad(work).items():
        assert run(runs, name) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert name in error
        assert words in error
        assert not (work / "out").exists()


def test_two_inputs_of_one_stem(runs, work, capsys):
    np.save("speech.npy", np.load("one.npy"))
    assert run(runs, "speech.npy", "speech.wav") == 1
    assert "speech.wav: found the output name speech.wav taken by speech.npy" in capsys.readouterr().err
    assert len(read("out/speech.wav")) == 3 * AUDIO.hop_length


def test_an_input_that_fails_leaves_its_name_to_the_next(sourced, work, capsys):
    """Whether it cannot be read or its F0 cannot: the good one of the same stem is done."""
    (work / "speech.pdf").write_text("no sound")
    np.save("speech.npy", np.zeros((7, 9), np.float32))
    soundfile.write("speech.flac", 1e-3 * random_wav(1, 5)[0, :70].numpy(), RATE, subtype="PCM_16")
    (work / "four.txt").write_text("700\n" * 4)
    soundfile.write("speech.wav", 1e-3 * random_wav(1, 9)[0].numpy(), RATE, subtype="PCM_16")
    names = ["speech.pdf", "speech.npy", "speech.wav", "speech.flac"]
    assert main([str(sourced), *names, "--out", "out", "--f0", "four.txt"]) == 1
    first, second, third = (line for line in capsys.readouterr().err.splitlines() if ": found " in line)
    assert "speech.pdf: found suffix '.pdf', expected one of .wav, .flac" in first
    assert "speech.npy: found shape (7, 9)" in second
    assert "four.txt: found 4 values" in third
    assert len(read("out/speech.wav")) == 4 * AUDIO.hop_length
    assert main([str(sourced), "speech.pdf", "--out", "out"]) == 2
    assert "speech.pdf: found suffix '.pdf'" in capsys.readouterr().err  # and not the output that is there


def test_existing_outputs_are_kept_unless_told(runs, work, capsys):
    (work / "out").mkdir()
    (work / "out" / "one.wav").write_text("precious")
    assert run(runs, "one.npy") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (work / "out" / "one.wav").read_text() == "precious"
    assert run(runs, "one.npy", "--overwrite") == 0
    assert len(read("out/one.wav")) == 3 * AUDIO.hop_length


def test_no_input_is_ever_written_over(runs, work, capsys):
    before = (work / "speech.wav").read_bytes()
    np.save("speech.npy", np.load("one.npy"))
    assert run(runs, "speech.wav", "--overwrite", out=".") == 2
    assert "among the inputs" in capsys.readouterr().err
    assert run(runs, "speech.npy", "speech.wav", "--overwrite", out=".") == 2
    assert (work / "speech.wav").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "-1"], "--temperature: found -1.0"),
        (["--seed", "-1"], "--seed: found -1"),
        (["--device", "abacus"], "abacus"),
        (["--method", "cached"], "--method: found 'cached'"),
        (["--method", "quick"], "--method: found 'quick', expected one of auto, naive"),
        (["--speaker", "0"], "--speaker: found '0'"),
        (["--out", "one.npy"], "--out: found 'one.npy', expected a folder"),
        (["--out", "one.npy/a/b"], "--out: found 'one.npy', expected a folder"),
        (["--colour", "red"], "colour"),
    ],
)
def test_mistakes_in_the_command(runs, work, capsys, arguments, message):
    assert main([str(runs / "student"), "one.npy", "--out", "out", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (work / "out").exists()


def test_no_gpu_is_one_line(runs, work, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run(runs, "one.npy", "--device", "cuda") == 2
    assert "without a usable GPU" in capsys.readouterr().err


def test_no_checkpoint_is_one_line(work, capsys):
    assert main(["absent", "one.npy", "--out", "out"]) == 2
    assert capsys.readouterr().err.startswith("distill-synthesize: absent: found no such file")


def test_a_model_of_several_voices_needs_one(runs, work, capsys):
    assert run(runs, "one.npy", net="voices") == 2
    assert "--speaker: found None, expected a name or 0 to 2" in capsys.readouterr().err
    assert run(runs, "one.npy", "--speaker", "3", net="voices") == 2
    assert run(runs, "one.npy", "--speaker", "0", net="voices", out="a") == 0
    assert run(runs, "one.npy", "--speaker", "2", net="voices", out="b") == 0
    assert (read("a/one.wav") != read("b/one.wav")).any()


def test_a_full_disk_stops_the_batch(runs, work, capsys, monkeypatch):
    def full(path, *_):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(synthesize, "write_audio", full)
    assert run(runs, "one.npy", "two.npy") == 2
    error = capsys.readouterr().err
    assert "No space left on device: 'out/one.wav'" in error
    assert len(error.splitlines()) == 1


def test_odd_inputs_are_done_and_said(runs, work, capsys):
    np.save("decibels.npy", np.full((6, 4), -60.0))
    soundfile.write("silence.wav", np.zeros(64), RATE)
    soundfile.write("stereo.wav", np.full((64, 2), 0.1), 2 * RATE)
    assert run(runs, "decibels.npy", "silence.wav", "stereo.wav") == 0
    error = capsys.readouterr().err
    assert "decibels.npy: values from -60.0 to -60.0" in error
    assert "silence.wav: silent from end to end" in error
    assert "stereo.wav: stereo mixed down" in error
    assert "stereo.wav: resampled 16000 -> 8000 Hz" in error


class Analysis(torch.nn.Linear):
    """As much of a model as reading a mel asks for."""

    def __init__(self, audio):
        super().__init__(1, 1)
        self.config = SimpleNamespace(audio=audio)


def test_decadic_and_normalised_mels_get_a_note_and_natural_ones_none(tmp_path):
    """All clips of the package: as they are, by log10, and brought to [-4, 4]."""
    model = Analysis(AudioConfig(8000, 256, 256, 64, 40, 0.0, 4000.0))
    audio, log_mel = model.config.audio, LogMel(model.config.audio)
    corpus = open_corpus("bundled", audio)
    for clip in (*corpus.train, *corpus.dev, *corpus.test):
        mel = log_mel(load_clip(clip, audio)[None])[0]
        scaled = 8 * (mel - mel.min()) / (mel.max() - mel.min()) - 4
        for values, told in ((mel, False), (mel / np.log(10), True), (scaled, True)):
            np.save(tmp_path / "mel.npy", values.numpy())
            notes = read_mel(tmp_path / "mel.npy", model)[1]
            assert [note.endswith("(are these decadic logarithms, or a normalised mel?)") for note in notes] == [
                True
            ] * told


def test_a_folders_files_of_other_kinds_are_said(runs, work, capsys):
    (work / "in" / "deep").mkdir(parents=True)
    for name in ("a.m4a", "b.PT", "deep/c.m4a", "notes.txt", "list.csv", ".hidden.m4a"):
        (work / "in" / name).write_text("no input")
    shutil.copy("speech.wav", "in/d.wav")
    soundfile.write("in/d.mp3", np.zeros(700), RATE)
    assert run(runs, "in", "--projection", "0") == 0
    said, *rest = capsys.readouterr().err.splitlines()
    other = "3 files of other kinds not used: .m4a, .pt"
    beside = "1 compressed with loss not used: beside the same without, such as d.mp3"
    assert said == f"distill-synthesize: in: {other}; {beside}"
    assert not [line for line in rest if ": goes to" in line]
    assert run(runs, ".", "--overwrite") == 0
    shutil.rmtree("in")
    capsys.readouterr()
    assert run(runs, ".", "--overwrite") == 0
    assert "not used" not in capsys.readouterr().err


def test_clipped_samples_are_counted(runs, work, capsys):
    assert run(runs, "one.npy", "--temperature", "1000") == 0
    over = (np.abs(read("out/one.wav").astype(int)) >= 32767).sum()
    assert over > 0
    assert (
        f"out/one.wav: {over} of 48 samples beyond full scale were clipped (is the mel natural"
        in capsys.readouterr().err
    )


@pytest.fixture(scope="module")
def sourced(tmp_path_factory):
    """A student with a source-filter prior."""
    place = tmp_path_factory.mktemp("sourced")
    model = small_student(prior="source_filter").float()
    config = to_dict(model.config) | {"gain": 200.0}
    checkpoint.save(place / checkpoint.FILE_NAME, kind="student", config=config, model_state=model.state_dict())
    return place


def test_f0_can_be_given_and_moved(sourced, work):
    def make(out, *extra):
        assert main([str(sourced), "one.npy", "--out", out, *extra]) == 0
        return read(f"{out}/one.wav")

    np.save("one.npy", random_mel(1, 3, seed=1)[0].numpy() - 12)  # quiet: nothing is clipped
    (work / "one.txt").write_text("700\n750\n800\n")
    (work / "up.txt").write_text("\n".join(str(f * 2 ** (2 / 12)) for f in (700, 750, 800)))
    (work / "folder").mkdir()
    (work / "folder" / "one.txt").write_text("700\n750\n800\n")
    given = make("a", "--f0", "one.txt")
    assert (given == make("b", "--f0", "folder")).all()
    assert (given != make("c")).any()
    moved = make("d", "--f0", "one.txt", "--transpose", "2")
    assert np.abs(moved.astype(int) - make("e", "--f0", "up.txt")).max() <= 1  # the file's digits
    assert (moved != given).any()


def test_a_changed_f0_is_not_projected_back(sourced, work, capsys):
    soundfile.write("voice.wav", 1e-3 * random_wav(1, 5)[0, :70].numpy(), RATE, subtype="PCM_16")
    for steps, out in ((), "a"), (("--projection", "0"), "b"):
        assert main([str(sourced), "voice.wav", "--out", out, "--transpose", "1", *steps]) == 0
    assert (read("a/voice.wav") == read("b/voice.wav")).all()
    assert main([str(sourced), "voice.wav", "--out", "c", "--transpose", "1", "--projection", "2"]) == 2
    expected = "--projection: found 2, expected 0 beside --f0 and --transpose: the mel has its own F0"
    assert expected in capsys.readouterr().err
    assert main([str(sourced), "voice.wav", "--out", "c", "--projection", "-1"]) == 2
    assert "--projection: found -1, expected 0 or more" in capsys.readouterr().err


def test_frames_that_do_not_overlap_are_not_projected_and_cannot_be(tmp_path, work, capsys):
    model = small_student().float()
    config = to_dict(model.config)
    config |= {"gain": 200.0, "audio": config["audio"] | {"win_length": AUDIO.hop_length}}
    run = str(tmp_path / checkpoint.FILE_NAME)
    checkpoint.save(run, kind="student", config=config, model_state=model.state_dict())
    soundfile.write("voice.wav", 1e-3 * random_wav(1, 5)[0].numpy(), RATE, subtype="PCM_16")
    for out, extra in (("a", ()), ("b", ("--projection", "0"))):
        assert main([run, "voice.wav", "--out", out, *extra]) == 0
    assert (read("a/voice.wav") == read("b/voice.wav")).all()
    capsys.readouterr()
    assert main([run, "voice.wav", "--out", "c", "--projection", "2"]) == 2
    said = "--projection: found 2, expected 0: the frames of this model's analysis do not overlap"
    assert capsys.readouterr().err == f"distill-synthesize: {said}\n"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--f0", "absent"), "--f0: found 'absent'"),
        (("--transpose", "99"), "--transpose: found 99"),
        (("--f0", "short.txt"), "short.txt: found 1 values"),
        (("--f0", "empty"), "one.txt: found no such file"),
    ],
)
def test_wrong_f0_is_one_line(sourced, work, capsys, extra, message):
    (work / "short.txt").write_text("100\n")
    (work / "empty").mkdir()
    assert main([str(sourced), "one.npy", "--out", "out", *extra]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_textbook_student_takes_no_f0(runs, work, capsys):
    assert run(runs, "one.npy", "--transpose", "1") == 2
    assert "only a student with a source_filter" in capsys.readouterr().err
