"""`distill-imagine`: a VAE's patches through a student to WAV: speech-like sound from noise, or between two clips."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import jsonargparse
import torch
from torch import Tensor

from distill import models
from distill.inputs import read_mel
from distill.latent.patches import cut, overlap_add
from distill.latent.segmentvae import SegmentVAE
from distill.student import Student
from wavenet.arguments import parse_arguments
from wavenet.audio import write_audio
from wavenet.config import require
from wavenet.errors import DONE, UserError, command


@command("distill-imagine")
def main(argv: Sequence[str] | None = None) -> int:
    """RUN --student RUN2 --out DIR: noise-1.wav, ... from prior draws; --between A B: between-0.00.wav, ... to 1.00."""
    arguments = parse_arguments(_parser(), argv)
    require(arguments.seed >= 0, "--seed", arguments.seed, "0 or more")
    require(0 < arguments.seconds <= 600, "--seconds", arguments.seconds, "more than 0, at most 600")
    require(arguments.count > 0, "--count", arguments.count, "at least 1")
    require(arguments.stops >= 2, "--stops", arguments.stops, "at least 2: both ends")
    require(arguments.temperature >= 0, "--temperature", arguments.temperature, "0 or more")
    vae, student = _load(arguments.run, arguments.student)
    out = Path(arguments.out)
    require(not out.exists() or out.is_dir(), "--out", arguments.out, "a folder")
    if arguments.between is None:
        mels = from_noise(vae, arguments.count, arguments.seconds, arguments.seed)
    else:
        first, second = (read_mel(Path(name), vae)[0][0] for name in arguments.between)
        mels = between(vae, first, second, arguments.stops)
    out.mkdir(parents=True, exist_ok=True)
    rate = student.config.audio.sample_rate
    for name, mel in mels:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{arguments.seed} {name}".encode()))
        wav = student.sample(mel[None], temperature=arguments.temperature, generator=generator)[0]
        clipped = write_audio(out / f"{name}.wav", wav, rate)
        note = f", {clipped} samples beyond full scale were clipped" if clipped else ""
        print(f"{out / name}.wav: {len(wav) / rate:.2f} s{note}", flush=True)
    return DONE


def from_noise(vae: SegmentVAE, count: int, seconds: float, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Name and mel (M, F) [nats] of `count` signals: patches of independent prior draws, a quarter over the next."""
    audio, frames = vae.config.audio, vae.config.frames
    step = frames - frames // 4
    wanted = seconds * audio.sample_rate / audio.hop_length
    patches = max(1, round((wanted - frames) / step) + 1)
    for place in range(1, count + 1):
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {place}".encode()))
        with torch.no_grad():
            z = vae.prior().sample(patches, generator)
        yield f"noise-{place}", overlap_add(vae.decode(z), step)


def between(vae: SegmentVAE, first: Tensor, second: Tensor, stops: int) -> Iterator[tuple[str, Tensor]]:
    """Name and mel (M, F) [nats] at `stops` places between two mels (M, F1), (M, F2), as far as the shorter goes.

    z = (1 - a) z_first + a z_second patch by patch, of posterior means. Raises UserError where one is shorter than a
    patch.
    """
    frames = vae.config.frames
    step, length = max(1, frames // 2), min(first.shape[1], second.shape[1])
    require(length >= frames, "--between", f"{length} frames", f"recordings of at least {frames} frames")
    ends = [vae.posterior(cut(mel[:, :length], frames, step)).centre() for mel in (first, second)]
    for place in range(stops):
        share = place / (stops - 1)
        yield f"between-{share:.2f}", overlap_add(vae.decode(torch.lerp(ends[0], ends[1], share)), step)


def _load(run: str, student_run: str) -> tuple[SegmentVAE, Student]:
    vae, student = models.load(run), models.load(student_run)
    if not isinstance(vae, SegmentVAE):
        raise UserError(f"{run}: found a {type(vae).__name__}, expected a VAE of segments (distill-train-segments)")
    if not isinstance(student, Student):
        raise UserError(f"--student: found a {type(student).__name__} in {student_run}, expected a student")
    if vae.config.audio != student.config.audio:
        raise UserError(f"--student: found {student.config.audio}, expected the VAE's {vae.config.audio}")
    require(not student.config.speakers, "--student", student_run, "a student of one speaker")
    return vae, student


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="distill-imagine", description=main.__doc__)
    parser.add_argument("run", type=str, help="a run of distill-train-segments")
    parser.add_argument("--student", type=str, required=True, help="a run of distill-train on the same mels")
    parser.add_argument("--out", type=str, required=True, help="folder for the WAV files, 16-bit PCM")
    parser.add_argument("--count", type=int, default=4, help="signals from noise")
    parser.add_argument("--seconds", type=float, default=3.0, help="their length, to about half a patch")
    parser.add_argument(
        "--between", type=str, nargs=2, help="two recordings (or .npy mels): sound between them instead"
    )
    parser.add_argument("--stops", type=int, default=5, help="places from one to the other, both ends included")
    parser.add_argument("--seed", type=int, default=0, help="of the prior's draws and of the student's noise")
    parser.add_argument("--temperature", type=float, default=1.0, help="scales the student's noise")
    return parser
