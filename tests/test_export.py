"""Export: the graph is the student in float64, the ONNX file is it at any length; what the command refuses."""

import copy
import importlib.util
import json

import pytest
import torch

from distill import export
from distill.config import StudentConfig
from distill.export import TOLERANCE, main, metadata, parity, session_of
from distill.vocoder import Vocoder
from tests.conftest import AUDIO, random_mel, small_student, small_teacher
from wavenet import checkpoint
from wavenet.arguments import from_dict, to_dict
from wavenet.pitch.contour import Pitch

installed = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not installed, reason="onnx, onnxscript or onnxruntime is not installed: .[export]")
STUDENTS = {
    "logistic": {},
    "normal": {"noise": "normal", "kernel_size": 3, "speakers": 3, "flows": 1},
    "source-filter": {"prior": "source_filter", "speakers": 2, "flows": 1},
    "source-filter, sharpened": {"prior": "source_filter", "flows": 1, "sharpening": 2},
}


def arguments(student, batch: int, frames: int) -> dict[str, torch.Tensor]:
    """Every input of the student's graph, in its precision: a quiet mel and a voice of 90 to 400 Hz, with pauses."""
    like = next(student.parameters())
    mel = (random_mel(batch, frames) - 6).to(like)
    found = {"noise": student.noise(mel, generator=torch.Generator().manual_seed(0)), "mel": mel}
    if student.prior is not None:
        found["f0"] = 90 + 310 * torch.rand(batch, frames, generator=torch.Generator().manual_seed(1)).to(like)
        found["voiced"] = (torch.arange(frames) % 7 < 5).to(like).repeat(batch, 1)
    if student.config.speakers:
        found["speaker"] = torch.arange(batch) % student.config.speakers
    return found


@torch.no_grad()
def expected(student, values: dict[str, torch.Tensor]) -> torch.Tensor:
    pitch = Pitch(values["f0"], values["voiced"]) if "f0" in values else None
    return student(values["noise"], values["mel"], values.get("speaker"), pitch).wav


@pytest.fixture(scope="module", params=STUDENTS)
def exported(request):
    """A student and its ONNX file."""
    torch.set_num_threads(1)
    student = small_student(**STUDENTS[request.param]).float()
    return student, export.export(student)


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("frames", [1, 2, 33])
def test_the_graph_is_the_student_in_float64(name, frames):
    student = small_student(**STUDENTS[name])
    values = arguments(student, 2, frames)
    torch.testing.assert_close(Vocoder(student)(**values), expected(student, values), rtol=1e-9, atol=1e-9)


@needs_onnx
def test_the_file_is_the_student_at_every_length_and_batch(exported):
    student, content = exported
    session = session_of(content, threads=1)
    for batch, frames in ((1, 1), (3, 2), (2, 5), (1, 33), (2, 400)):
        values = arguments(student, batch, frames)
        assert [put.name for put in session.get_inputs()] == list(values)
        (wav,) = session.run(None, {name: value.numpy() for name, value in values.items()})
        torch.testing.assert_close(torch.from_numpy(wav), expected(student, values), rtol=0.0, atol=TOLERANCE)


@needs_onnx
def test_ten_seconds_stay_in_phase(exported):
    student, content = exported
    frames = 10 * AUDIO.sample_rate // AUDIO.hop_length + 1
    values = arguments(student, 1, frames)
    (wav,) = session_of(content, threads=1).run(None, {name: value.numpy() for name, value in values.items()})
    torch.testing.assert_close(torch.from_numpy(wav), expected(student, values), rtol=0.0, atol=TOLERANCE)


@needs_onnx
def test_the_file_alone_says_how_it_is_used(exported):
    student, content = exported
    found = session_of(content).get_modelmeta().custom_metadata_map
    assert found == metadata(student)
    assert from_dict(StudentConfig, json.loads(found["config"])) == student.config
    assert int(found["sample_rate"]) == AUDIO.sample_rate
    assert json.loads(found["mel_settings"]) == to_dict(AUDIO)
    assert list(json.loads(found["inputs"])) == Vocoder(student).inputs
    assert student.config.noise in found["noise_law"]
    assert b".py" not in content  # nothing of the machine that wrote it


@needs_onnx
def test_the_check_sees_another_students_file(exported, tmp_path):
    student, content = copy.deepcopy(exported[0]), exported[1]
    (tmp_path / "a.onnx").write_bytes(content)
    apart, longest = parity(tmp_path / "a.onnx", student)
    assert apart <= TOLERANCE
    assert longest > AUDIO.sample_rate
    with torch.no_grad():
        output = student.flows[-1].stack.output.bias
        output += 1e-3
        moved, _ = parity(tmp_path / "a.onnx", student)
        output += float("nan")
        broken, _ = parity(tmp_path / "a.onnx", student)
        output.zero_()
    assert moved > TOLERANCE
    assert not broken <= TOLERANCE


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A student's and a teacher's checkpoint in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name, model in (("student", small_student(flows=1).float()), ("teacher", small_teacher().float())):
        checkpoint.save(
            tmp_path / f"{name}.pt", kind=name, config=to_dict(model.config), model_state=model.state_dict()
        )
    return tmp_path


@needs_onnx
def test_the_command_writes_checks_and_says_so(exported, tmp_path, monkeypatch, capsys):
    student, content = exported
    monkeypatch.setattr(export, "export", lambda *_: content)
    checkpoint.save(tmp_path / "s.pt", kind="student", config=to_dict(student.config), model_state=student.state_dict())
    out = tmp_path / "new" / "file.onnx"
    assert main([str(tmp_path / "s.pt"), "--out", str(out)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{out}: ")
    assert f"{', '.join(Vocoder(student).inputs)} -> wav; at most " in line
    assert [path.name for path in out.parent.iterdir()] == ["file.onnx"]
    import onnx

    onnx.checker.check_model(onnx.load(out), full_check=True)


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 23])
def test_opsets_from_the_first_to_the_last(work, opset):
    assert main(["student.pt", "--out", "file.onnx", "--opset", str(opset)]) == 0
    import onnx

    model = onnx.load(work / "file.onnx")
    assert [entry.version for entry in model.opset_import if not entry.domain] == [opset]


@needs_onnx
@pytest.mark.parametrize("apart", [2 * TOLERANCE, float("nan")])
def test_a_file_that_is_not_the_student_is_not_kept(work, capsys, monkeypatch, apart):
    monkeypatch.setattr(export, "export", lambda *_: b"file")
    monkeypatch.setattr(export, "parity", lambda *_: (apart, 100))
    (work / "file.onnx").write_text("precious")
    assert main(["student.pt", "--out", "file.onnx", "--overwrite"]) == 1
    assert "not written" in capsys.readouterr().out
    assert (work / "file.onnx").read_text() == "precious"
    assert sorted(path.name for path in work.iterdir()) == ["file.onnx", "student.pt", "teacher.pt"]


@needs_onnx
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["teacher.pt", "--out", "file.onnx"], "teacher.pt: found a teacher, expected a student"),
        (["absent", "--out", "file.onnx"], "absent: found no such file"),
        (["student.pt", "--out", "file.bin"], "--out: found 'file.bin', expected FILE.onnx"),
        (["student.pt", "--out", "there.onnx"], "expected no such file yet (or --overwrite)"),
        (["student.pt", "--out", "folder.onnx"], "expected a file, not a folder"),
        (["student.pt", "--out", "there.onnx/file.onnx"], "there.onnx"),
        (["student.pt", "--out", "file.onnx", "--opset", "9"], "--opset: found 9, expected 18 to 23"),
        (["student.pt", "--out", "file.onnx", "--colour", "red"], "colour"),
    ],
)
def test_mistakes_are_one_line(work, capsys, words, message):
    (work / "there.onnx").write_text("precious")
    (work / "folder.onnx").mkdir()
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert (work / "there.onnx").read_text() == "precious"
    assert not (work / "file.onnx").exists()


def test_a_missing_package_is_named_with_its_extra(work, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["student.pt", "--out", "file.onnx"]) == 2
    error = capsys.readouterr().err
    assert "onnx: found no such package" in error
    assert ".[export]" in error
