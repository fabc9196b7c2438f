"""`distill-export`: a student as one ONNX file, a vocoder of any length and batch, checked against it."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from torch import Tensor, nn
from torch.export import Dim

from distill import models
from distill.student import Student
from distill.vocoder import Vocoder
from wavenet import __version__
from wavenet.arguments import parse_arguments, to_dict
from wavenet.config import AudioConfig, require
from wavenet.data import load_clip, open_corpus
from wavenet.errors import DONE, SOME_FAILED, UserError, command
from wavenet.pitch.contour import Pitch

TOLERANCE = 1e-4  # between the file's samples and the student's, full scale being 1
FORMAT = "parallel-wavenet-distillation vocoder"
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_OPSETS = (18, 23)  # first that the exporter writes, last that was tried
_TRACED = (2, 5)  # signals and frames of the example that is traced
_CHECKED = ((1, 1), (3, 2), (2, 37))  # signals and frames of the check, before a whole recording

_NOISE = {
    "logistic": "independent standard logistic, log(u / (1 - u)) of uniform u",
    "normal": "independent standard normal",
}
_INPUTS = {
    "noise": "(batch, samples) float32, samples = frames x hop_length",
    "mel": "(batch, n_mels, frames) float32, as mel_analysis says",
    "f0": "(batch, frames) float32, Hz, above 0 in every frame: interpolated where unvoiced",
    "voiced": "(batch, frames) float32, 1 voiced to 0 unvoiced",
    "speaker": "(batch,) int64, place in speaker_names where there are any",
}
_MEL = (
    "natural log of max(bands @ magnitude, log_clamp); Hann window, Slaney bands of unit area, magnitude = "
    "sqrt(re^2 + im^2 + 1e-9) of an STFT of the recording reflected by (n_fft - hop_length) / 2 samples at either end"
)


@command("distill-export")
def main(argv: Sequence[str] | None = None) -> int:
    """CHECKPOINT --out FILE.onnx: a student as an ONNX vocoder, noise and mel to audio, for any length and batch.

    A source-filter student takes F0 and voicing too: its pitch network is not in the file. The samples are compared
    with the student's at the end; a file that differs by more than 1e-4 is not written. Exit status: 0 written, 1 not
    equal to the student, 2 a mistake in the command.
    """
    arguments = parse_arguments(_parser(), argv)
    out, opset = Path(arguments.out), arguments.opset
    require(out.suffix == ".onnx", "--out", arguments.out, "FILE.onnx")
    require(not out.is_dir(), "--out", arguments.out, "a file, not a folder")
    require(arguments.overwrite or not out.exists(), "--out", arguments.out, "no such file yet (or --overwrite)")
    require(opset is None or _OPSETS[0] <= opset <= _OPSETS[1], "--opset", opset, f"{_OPSETS[0]} to {_OPSETS[1]}")
    require_packages()
    student = models.load(arguments.checkpoint)
    if not isinstance(student, Student):
        kind = next(kind for kind, (_, found) in models.KINDS.items() if isinstance(student, found))
        raise UserError(f"{arguments.checkpoint}: found a {kind}, expected a student")
    order = student.config.linear_prediction
    require(order == 0, f"{arguments.checkpoint}: linear_prediction", order, "0: a file has no recursion")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()  # a folder that cannot be written is known before the work
        print("distill-export: tracing the student and comparing the file with it: a minute or two", file=sys.stderr)
        temporary.write_bytes(export(student, opset))
        apart, longest = parity(temporary, student)
        size = temporary.stat().st_size / 1e6
        found = f"at most {apart:.2g} from the student at the same noise, up to {longest:,} samples"
        if not apart <= TOLERANCE:  # a NaN is no agreement
            print(f"{out}: not written: {found}, allowed {TOLERANCE:g}")
            return SOME_FAILED
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    print(f"{out}: {size:.1f} MB, {', '.join(Vocoder(student).inputs)} -> wav; {found} (allowed {TOLERANCE:g})")
    return DONE


def export(student: Student, opset: int | None = None) -> bytes:
    """The ONNX file of a student: inputs of `Vocoder.inputs`, output wav, float32; batch and length are free.

    opset: version of the ONNX operators, None for the exporter's own choice. Metadata say the rest: `metadata`.
    """
    vocoder = Vocoder(student).float()
    batch, frames = _TRACED
    example = dict(zip(vocoder.inputs, _example(student, batch, torch.zeros(1, _bands(student), frames)), strict=True))
    free = _free(vocoder.inputs, student.config.audio.hop_length)
    return onnx_file(vocoder, example, free, "wav", opset, metadata(student))


def onnx_file(
    module: nn.Module,
    example: dict[str, Tensor],
    free: dict[str, dict[int, Any]],
    output: str,
    opset: int | None = None,
    properties: dict[str, str] | None = None,
) -> bytes:
    """The ONNX file of a module with one output, traced on an example of its arguments by name.

    free: the dimensions of each argument that may vary, as torch.export.Dim.
    """
    import onnx

    # What asks for a gradient runs functions that have their own, which no exporter takes.
    frozen = copy.deepcopy(module).eval().requires_grad_(False)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            frozen,
            kwargs=example,
            input_names=list(example),
            output_names=[output],
            opset_version=opset,
            dynamic_shapes=free,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # where in whose sources the operation stood
        node.doc_string = ""
    model.producer_name, model.producer_version = FORMAT, __version__
    onnx.helper.set_model_props(model, properties or {})
    content = io.BytesIO()
    onnx.save_model(model, content)
    return content.getvalue()


def metadata(student: Student) -> dict[str, str]:
    """What a program must know that has the file alone: rates, the mel's analysis, the law of the noise, the rest."""
    config = student.config
    audio = config.audio
    inputs = {name: _INPUTS[name] for name in Vocoder(student).inputs}
    return {
        "format": FORMAT,
        "sample_rate": str(audio.sample_rate),
        "hop_length": str(audio.hop_length),
        "n_mels": str(audio.n_mels),
        "mel_settings": json.dumps(to_dict(audio)),
        "mel_analysis": _MEL,
        "inputs": json.dumps(inputs),
        "output": "wav (batch, samples) float32, full scale is 1, not clipped",
        "noise": config.noise,
        "noise_law": _NOISE[config.noise],
        "temperature": "a factor on the noise; 1 is the distribution that was trained, 0 its location alone",
        "pitch": "none" if student.prior is None else "given: f0 and voiced are inputs, predicted or tracked elsewhere",
        "speaker_names": json.dumps(config.speaker_names),
        "receptive_field": str(student.receptive_field),
        "config": json.dumps(to_dict(config)),
    }


def parity(path: Path, student: Student) -> tuple[float, int]:
    """(greatest difference between the file's samples and the student's at the same noise, longest signal compared).

    Three short batches and a whole bundled recording, none of the traced length.
    """
    session, recording = session_of(path.read_bytes()), _recording(student)
    apart, longest = 0.0, 0
    for batch, frames in (*_CHECKED, (1, recording.shape[2])):
        values = _example(student, batch, recording[:, :, :frames])
        noise, mel = values[:2]
        named = dict(zip(Vocoder(student).inputs, values, strict=True))
        pitch = Pitch(named["f0"], named["voiced"]) if "f0" in named else None
        with torch.no_grad():
            expected = student(noise, mel, named.get("speaker"), pitch).wav
        (found,) = session.run(None, {name: value.numpy() for name, value in named.items()})
        difference = float((torch.from_numpy(found) - expected).abs().max())
        apart = difference if math.isnan(difference) else max(apart, difference)
        longest = max(longest, expected.shape[1])
        if math.isnan(apart):
            break
    return apart, longest


def session_of(content: bytes, threads: int = 0) -> Any:
    """An onnxruntime.InferenceSession on the CPU; threads 0 leaves their number to it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def require_packages() -> None:
    """Raise UserError unless the packages of the extra [export] are there."""
    for name in _PACKAGES:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"{name}: found no such package, expected those of pip install -e '.[export]'")


def _example(student: Student, batch: int, mel: Tensor) -> list[Tensor]:
    """Values for every input of the file, the same mel (1, M, F) in a batch, noise of a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    mel = mel.expand(batch, -1, -1).contiguous()
    values = [student.noise(mel, generator=generator), mel]
    if student.pitch is not None:
        values += [value.contiguous() for value in student.pitch.predict(mel)]
    if student.config.speakers:
        values.append(torch.arange(batch) % student.config.speakers)
    return values


def _recording(student: Student) -> Tensor:
    """mel (1, M, F) of a bundled recording."""
    audio: AudioConfig = student.config.audio
    wav = load_clip(open_corpus("bundled", audio).test[0], audio)
    mel: Tensor = student.log_mel(wav[None])
    return mel


def _bands(student: Student) -> int:
    return student.config.audio.n_mels


def _free(inputs: Sequence[str], hop: int) -> dict[str, dict[int, Any]]:
    """The dimensions of each input that are not fixed."""
    batch, frames = Dim("batch"), Dim("frames")
    named = {"noise": {0: batch, 1: hop * frames}, "mel": {0: batch, 2: frames}, "speaker": {0: batch}}
    return {name: named.get(name, {0: batch, 1: frames}) for name in inputs}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that it does not need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="distill-export", description=main.__doc__)
    parser.add_argument("checkpoint", type=str, help="a student's run folder, file, or shipped name")
    parser.add_argument("--out", type=str, required=True, help="FILE.onnx")
    parser.add_argument("--opset", type=int, help="version of the ONNX operators (default: the exporter's choice)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE.onnx")
    return parser
