"""Sound files <-> float32 wav (T,) in [-1, 1], and resampling. Nothing is normalised, clipped or altered in silence."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from wavenet.errors import UserError
from wavenet.truncation import fault

AUDIO_SUFFIXES = (".wav", ".flac")  # what keeps every sample, and what is written
_LOSSY = {".mp3": "MP3", ".ogg": "OGG", ".opus": "OGG"}  # read only, and where libsndfile was built with it
READABLE = (*AUDIO_SUFFIXES, *(name for name, kind in _LOSSY.items() if kind in soundfile.available_formats()))
PCM16_SCALE = 32768

_FORMATS = {".wav": "WAV", ".flac": "FLAC"}
_EXPECTED = f"a recording ({', '.join(READABLE)})"
_FULL_SCALE = 1 - 1 / PCM16_SCALE
_UNKNOWN_FRAMES = 2**40


@dataclasses.dataclass(frozen=True)
class AudioInfo:
    """What a file is: its own sample rate [Hz], channels and frames, and notes on what was done to it or is odd.

    full_scale: number of samples at or beyond 16-bit full scale (clipping, or a peak that only just touches it); 0
    where the samples were not looked at.
    """

    sample_rate: int
    channels: int
    frames: int
    notes: list[str] = dataclasses.field(default_factory=list)
    full_scale: int = 0


def read_info(path: str | Path) -> AudioInfo:
    """Read the header alone. Raises UserError for a missing, empty, unreadable or (but for FLAC) truncated file.

    The notes name what is compressed with loss.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: found no such file, expected {_EXPECTED}")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: found an empty file (0 bytes), expected {_EXPECTED}")
    if wrong := fault(path):
        raise UserError(f"{path}: {wrong}")
    try:
        info = soundfile.info(str(path))
    except soundfile.SoundFileError as error:
        raise _unreadable(path, error) from None
    if not 0 <= info.frames < _UNKNOWN_FRAMES:
        raise UserError(f"{path}: found a stream without its length, expected a complete file (encode it again)")
    if info.frames == 0:
        raise UserError(f"{path}: found an empty recording (0 samples), expected at least one sample")
    return AudioInfo(info.samplerate, info.channels, info.frames, _notes(info))


def read_audio(path: str | Path, sample_rate: int | None = None) -> tuple[Tensor, AudioInfo]:
    """Read a whole file, mixed down to one channel, resampled to `sample_rate` [Hz] -> wav (T,) float32, AudioInfo.

    The notes name what happened: "stereo mixed down", "resampled 24000 -> 22050 Hz", "clipped: ...".
    Raises UserError for a missing, empty, unreadable, truncated or non-finite file.
    """
    info = read_info(path)
    wav = _read(Path(path), 0, info.frames)
    notes = list(info.notes)
    full_scale = int((wav.abs() >= _FULL_SCALE).sum())
    if full_scale:
        notes.append(f"clipped: {full_scale} of {len(wav)} samples at full scale")
    if sample_rate is not None and sample_rate != info.sample_rate:
        notes.append(f"resampled {info.sample_rate} -> {sample_rate} Hz")
        wav = resample(wav, info.sample_rate, sample_rate)
    return wav, dataclasses.replace(info, notes=notes, full_scale=full_scale)


def read_segment(path: str | Path, start: int, length: int) -> Tensor:
    """Read samples start, ..., start + length - 1 at the file's own rate, mixed down -> (length,) float32.

    Nothing before it is decoded where the file `seeks`. Raises UserError when the file cannot be read that far.
    """
    if seeks(path):
        return _read(Path(path), start, length)
    return _read(Path(path), 0, start + length)[start:]


def seeks(path: str | Path) -> bool:
    """Whether a file can be read from the middle to the bit: decoders of what is compressed with loss cannot."""
    return Path(path).suffix.lower() not in _LOSSY


def has_original(path: str | Path) -> bool:
    """Whether the same recording lies beside a file that is compressed with loss, without loss: under its stem."""
    path = Path(path)
    return not seeks(path) and any(path.with_suffix(suffix).is_file() for suffix in AUDIO_SUFFIXES)


def write_audio(path: str | Path, wav: Tensor, sample_rate: int) -> int:
    """Write wav (T,) as 16-bit PCM, WAV or FLAC by the suffix; return how many samples beyond [-1, 1] were clipped.

    The file appears whole or not at all (temporary file, then rename). A 16-bit recording written back is bit-exact.
    Raises UserError for another suffix and for NaN, OSError when the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise UserError(f"{path}: found suffix {path.suffix!r}, expected one of {', '.join(_FORMATS)}")
    wav = wav.detach().cpu()
    if not bool(torch.isfinite(wav).all()):
        raise UserError(f"{path}: found NaN or infinite samples to write, expected finite numbers")
    over = int((wav.abs() > 1).sum())
    pcm = (wav.double() * PCM16_SCALE).round().clamp(-PCM16_SCALE, PCM16_SCALE - 1).to(torch.int16).numpy()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        soundfile.write(str(temporary), pcm, sample_rate, subtype="PCM_16", format=_FORMATS[path.suffix.lower()])
        os.replace(temporary, path)
    except soundfile.SoundFileError as error:
        raise OSError(f"{path}: cannot be written ({_sentence(error)})") from None
    finally:
        temporary.unlink(missing_ok=True)
    return over


def resampled_length(frames: int, from_rate: int, to_rate: int) -> int:
    """Number of samples that `resample` makes of `frames`: rounded down, so that nothing is invented at the end."""
    return frames * to_rate // from_rate


def resample(wav: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Band-limited resampling (soxr): wav (T,) at from_rate [Hz] -> (T * to_rate // from_rate,) float32."""
    if from_rate == to_rate:
        return wav
    import soxr

    samples = soxr.resample(wav.detach().cpu().numpy().astype(np.float32), from_rate, to_rate, quality="VHQ")
    return torch.from_numpy(samples[: resampled_length(len(wav), from_rate, to_rate)].copy())


def _read(path: Path, start: int, length: int) -> Tensor:
    try:
        with soundfile.SoundFile(str(path)) as file:
            file.seek(start)
            samples = file.read(length, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise _unreadable(path, error) from None
    if len(samples) < length:
        raise UserError(
            f"{path}: found a truncated file of {start + len(samples)} samples, expected {start + length} by its header"
        )
    wav = torch.from_numpy(samples[:, 0].copy() if samples.shape[1] == 1 else samples.mean(axis=1))
    if not bool(torch.isfinite(wav).all()):
        raise UserError(f"{path}: found NaN or infinite samples, expected finite numbers")
    return wav


def _notes(info: Any) -> list[str]:
    lossy = [f"compressed with loss ({info.format})"] if info.format in _LOSSY.values() else []
    if info.channels == 1:
        return lossy
    return [*lossy, "stereo mixed down" if info.channels == 2 else f"{info.channels} channels mixed down"]


def _unreadable(path: Path, error: Exception) -> UserError:
    if not path.is_file():
        return UserError(f"{path}: found no such file, expected {_EXPECTED}")
    return UserError(f"{path}: found an unreadable file ({_sentence(error)}), expected {_EXPECTED}")


def _sentence(error: Exception) -> str:
    reason = getattr(error, "error_string", "") or str(error)
    if "possibly a pipe" in reason:  # libsndfile's word for an MP3 without a single frame
        reason = "Format not recognised"
    return " ".join(reason.split()).rstrip(".")
