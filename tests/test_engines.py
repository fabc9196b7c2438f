"""Engines: the samples of torch at the same noise, across tiles and chunks; which one is taken, what is refused."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch

from distill.config import StudentConfig
from distill.engines import table, tiled
from distill.engines.measure import main as measure
from distill.engines.table import ENGINES, build
from distill.engines.tiled import TiledFlows
from distill.student import Student
from distill.synthesize import main
from tests.conftest import AUDIO, UPSAMPLE, random_mel, random_wav, randomise, small_student, small_teacher
from wavenet import checkpoint
from wavenet.arguments import to_dict
from wavenet.config import StackConfig
from wavenet.errors import UserError

installed = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not installed, reason="onnx, onnxscript or onnxruntime is not installed: .[export]")
TOLERANCE = 1e-4


def deep_student(kernel_size: int) -> Student:
    """Six layers a flow, so that the past of the last ones is longer than a tile of 32; odd widths; float32."""
    stack = StackConfig(1, 6, kernel_size, residual_channels=7, gate_channels=10, skip_channels=9)
    config = StudentConfig(audio=AUDIO, flows=[stack, stack], upsample=UPSAMPLE, gain=2.0)
    torch.manual_seed(0)
    student = randomise(Student(config), scale=0.2)
    assert isinstance(student, Student)
    return student.eval()


def inputs(student: Student, batch: int, frames: int):
    """Noise (B, T) and Conditioning of a quiet mel, in float32."""
    mel = (random_mel(batch, frames) - 6).float()
    speaker = torch.arange(batch) % student.config.speakers if student.config.speakers else None
    noise = student.noise(mel, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return noise, student.conditioning(mel, speaker)


def compare(student: Student, name: str, batch: int, frames: int) -> None:
    noise, cond = inputs(student, batch, frames)
    with torch.no_grad():
        expected, found = student.through(noise, cond), build(name, student)(noise, cond)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.0, atol=TOLERANCE)


@pytest.mark.parametrize("tile", [16, 32, 48, 4096])
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4])
def test_tiles_do_not_show(monkeypatch, kernel_size, tile):
    monkeypatch.setattr(tiled, "_TILE", tile)
    for batch, frames in ((1, 1), (2, 23), (1, 40)):
        compare(deep_student(kernel_size), "tiled", batch, frames)


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_parts_of_a_signal_on_threads_do_not_show(threads):
    student = deep_student(2)
    torch.set_num_threads(threads)
    for batch, frames in ((1, 90), (2, 91), (3, 8)):
        compare(student, "tiled", batch, frames)
    (flow,) = TiledFlows(student.iafs[:1])._flows
    spans = flow._spans(1, 90, AUDIO.hop_length)
    assert len(spans) == min(threads, 90 // (4 * -(-flow.flow.receptive_field // AUDIO.hop_length)))
    assert spans[0][1] == 0
    assert spans[-1][2] == 90


@pytest.mark.parametrize(
    "settings", [{"noise": "normal", "speakers": 3, "kernel_size": 3}, {"prior": "source_filter", "kernel_size": 3}]
)
def test_tiled_takes_speakers_and_signals(monkeypatch, settings):
    monkeypatch.setattr(tiled, "_TILE", 32)
    compare(small_student(**settings).float(), "tiled", 2, 23)


def in_place(student):
    with torch.no_grad():
        student.iafs[1].stack.blocks[0].dilated.weight.mul_(1.5)


def loaded(student):
    other = small_student().float().state_dict()
    student.load_state_dict({name: 0.9 * value if "flows" in name else value for name, value in other.items()})


def assigned(student):
    loaded(student)
    state = {name: 1.1 * value for name, value in student.state_dict().items()}
    student.load_state_dict(state, assign=True)


def replaced(student):
    bias = student.iafs[0].stack.output.bias
    student.iafs[0].stack.output.bias = torch.nn.Parameter(bias.detach() + 0.1)


def stepped(student):
    optimizer = torch.optim.Adam(student.flows.parameters(), lr=0.01)
    student.through(*inputs(student, 1, 3)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("change", [in_place, loaded, assigned, replaced, stepped])
def test_changed_weights_are_heard(change, monkeypatch):
    student, made = small_student().float(), []
    monkeypatch.setitem(ENGINES, "tiled", lambda changed: made.append(1) or TiledFlows(changed.iafs))
    engine, (noise, cond) = build("tiled", student), inputs(student, 1, 5)
    before = engine(noise, cond)
    assert torch.equal(before, engine(noise, cond))
    assert len(made) == 1
    change(student)
    with torch.no_grad():
        expected, found = student.through(noise, cond), engine(noise, cond)
    assert len(made) == 2
    assert float((found - before).abs().max()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=0.0, atol=TOLERANCE)


def test_an_engine_follows_its_student_to_what_it_cannot_compute():
    student = small_student().float()
    engine = build("tiled", student)
    noise, cond = inputs(student, 1, 5)
    student.double()
    with pytest.raises(UserError, match=r"found 'tiled' for a model in torch\.float64"):
        engine(noise, cond)


def test_weights_of_inference_mode_are_taken():
    with torch.inference_mode():
        student = small_student().float()
        compare(student, "tiled", 1, 5)


@needs_onnx
@pytest.mark.parametrize(
    "settings", [{"prior": "source_filter", "flows": 1}, pytest.param({"speakers": 2}, marks=pytest.mark.slow)]
)
def test_onnx_equals_torch(settings):
    compare(small_student(**settings).float(), "onnx", 3, 23)


@pytest.mark.slow
def test_compile_equals_torch():
    compare(small_student(flows=1).float(), "compile", 2, 23)


@pytest.mark.parametrize("settings", [{}, {"prior": "source_filter"}], ids=["textbook", "source-filter"])
def test_chunks_and_the_default(settings):
    student, mel = small_student(**settings).float(), (random_mel(2, 23) - 6).float()

    def sample(**extra):
        return student.sample(mel, generator=torch.Generator().manual_seed(0), **extra)

    plain = sample()
    assert torch.equal(plain, sample(engine=build("torch", student)))
    with torch.no_grad():
        noise = student.noise(mel, generator=torch.Generator().manual_seed(0))
        chained, _ = student.chain(noise, student.conditioning(mel))
    torch.testing.assert_close(plain, chained, rtol=0.0, atol=0.0 if student.prior is None else TOLERANCE)
    student.chunk_length = 5 * AUDIO.hop_length
    torch.testing.assert_close(sample(engine=build("tiled", student)), plain, rtol=0.0, atol=TOLERANCE)


def test_the_signal_model_alone_has_no_use_for_an_engine():
    student, mel = small_student(prior="source_filter").float(), (random_mel(1, 5) - 6).float()
    never = lambda signal, cond: 1 / 0  # noqa: E731
    student.sample(mel, signal_model=True, engine=never)
    with pytest.raises(ZeroDivisionError):
        student.sample(mel, engine=never)


def test_auto_is_tiled_or_says_why_it_is_not(monkeypatch, capsys):
    student = small_student(flows=1).float()
    assert isinstance(build("auto", student).engine, TiledFlows)
    monkeypatch.setattr(tiled, "TiledFlows", lambda flows: 1 / 0)
    assert build("auto", student) == student.through
    assert capsys.readouterr().err == "engine: torch, as tiled fails here (division by zero)\n"
    assert build("auto", student.double()) == student.through
    assert not capsys.readouterr().err


@pytest.mark.parametrize("name", ["tiled", "onnx", "quick"])
def test_engines_that_do_not_fit_are_refused(name):
    with pytest.raises(UserError, match=name):
        build(name, small_student(flows=1))  # float64


def test_compile_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match=r"C\+\+ compiler"):
        build("compile", small_student(flows=1))


def test_engines_that_are_not_used_are_not_imported():
    code = "import sys, distill.synthesize; print('numba' in sys.modules, 'onnxruntime' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A student, a teacher and a recording in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name, model in (("student", small_student().float()), ("teacher", small_teacher().float())):
        config = to_dict(model.config) | {"gain": 200.0}
        checkpoint.save(tmp_path / f"{name}.pt", kind=name, config=config, model_state=model.state_dict())
    soundfile.write("speech.wav", random_wav(1, 30)[0].numpy(), AUDIO.sample_rate, subtype="PCM_16")
    return tmp_path


def test_synthesize_takes_an_engine(work, capsys):
    found = {}
    for name in ("torch", "tiled", "auto"):
        assert main(["student.pt", "speech.wav", "--out", name, "--engine", name, "--projection", "0"]) == 0
        found[name] = soundfile.read(f"{name}/speech.wav", dtype="int16")[0].astype(int)
    assert main(["student.pt", "speech.wav", "--out", "default", "--projection", "0"]) == 0
    assert (soundfile.read("default/speech.wav", dtype="int16")[0] == found["torch"]).all()
    assert (found["auto"] == found["tiled"]).all()
    assert np.abs(found["tiled"] - found["torch"]).max() <= 4  # 1e-4 of full scale
    assert not capsys.readouterr().err
    assert main(["teacher.pt", "speech.wav", "--out", "no", "--engine", "tiled"]) == 2
    assert "--engine: found 'tiled', expected auto: only students have engines" in capsys.readouterr().err
    assert main(["student.pt", "speech.wav", "--out", "no", "--engine", "steam"]) == 2


def test_measure_prints_a_row_for_each_engine(work, capsys):
    assert measure(["student.pt", "--seconds", "0.05", "--repeats", "1", "--engines", "tiled,bf16"]) == 0
    _, _, _, products, *rows = capsys.readouterr().out.splitlines()
    assert products.startswith("| student | products | ")
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[:2] for row in cells] == [["student", name] for name in ("torch", "tiled", "bf16")]
    assert all(float(row[2]) > 0 for row in cells)
    assert float(cells[1][5]) < TOLERANCE < float(cells[2][5])
    assert measure(["teacher.pt"]) == 2
    assert measure(["student.pt", "--engines", "steam"]) == 2


def test_the_table_is_whole():
    assert list(ENGINES) == ["torch", "compile", "onnx", "tiled", "cudagraph", "triton", "triton16"]
    assert table.DEFAULT == "torch"
