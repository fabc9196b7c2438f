"""Whether a sound file is whole: what its container promises, held against the bytes that are there.

libsndfile forgives a WAV or Ogg file that was cut, and guesses the length of an MP3 that does not state it.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

_STREAMED = 0x7FFFF000  # data sizes from here on are placeholders of writers that could not seek back
_LARGEST_PAGE = 27 + 255 + 255 * 255  # of an Ogg stream
_LAST = 4  # flag of an Ogg stream's last page
_TOLERATED = 0.01  # of an MP3's stated size: tags come and go
# kbit/s by the index in an MP3 frame's header, of MPEG 1 and of MPEG 2 and 2.5, layer III.
_BITRATES = {
    3: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def fault(path: Path) -> str | None:
    """What is wrong with the size of a WAV, Ogg or MP3 file: "found ..., expected ...", or None.

    Nothing is decoded: a file of another kind, or with damage inside, is for the decoder to refuse.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            return _cut(_lost_of_riff(path))
        if head[:4] == b"OggS":
            return _ogg_fault(path)
        if head[:3] == b"ID3" or (head[:1] == b"\xff" and len(head) > 3 and _frame(head[:4]) is not None):
            return _mp3_fault(path)
    return None


def _cut(lost: int) -> str | None:
    return f"found a truncated file, expected {lost} more bytes after its end" if lost > 0 else None


def _lost_of_riff(path: Path) -> int:
    """Bytes of samples that a RIFF header promises beyond the end of the file."""
    with path.open("rb") as file:
        file.seek(12)
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", header)
            if name == b"data":
                return size - (path.stat().st_size - file.tell()) if size < _STREAMED else 0
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0


def _ogg_fault(path: Path) -> str | None:
    """The last page must be whole, and say that it is the last."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LARGEST_PAGE))
        end = file.read()
    place = end.rfind(b"OggS")
    page = end[place:]
    if place < 0 or len(page) < 27 or len(page) < 27 + page[26]:
        return _cut(1)
    size = 27 + page[26] + sum(page[27 : 27 + page[26]])
    if len(page) < size:
        return _cut(size - len(page))
    return None if page[5] & _LAST else "found a truncated file, expected an Ogg stream with its last page"


def _mp3_fault(path: Path) -> str | None:
    data = path.read_bytes()
    start = 0
    if data[:3] == b"ID3" and len(data) > 10:
        a, b, c, d = data[6:10]
        start = 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if data[5] & 0x10 else 0)
    tag = max(data.find(name, start, start + 200) for name in (b"Xing", b"Info"))
    if tag >= 0 and len(data) >= tag + 16:
        (flags,) = struct.unpack(">I", data[tag + 4 : tag + 8])
        if not flags & 2:
            return None
        at = tag + (12 if flags & 1 else 8)
        (size,) = struct.unpack(">I", data[at : at + 4])
        lost = size - (len(data) - start)
        return _cut(lost) if lost > _TOLERATED * size else None
    rates, place = set(), start
    while (frame := _frame(data[place : place + 4])) is not None:
        rates.add(frame[0])
        place += frame[1]
    if len(rates) > 1:
        return "found an MP3 of varying bit rate that does not state its length, expected it encoded again"
    return _cut(place - len(data))


def _frame(header: bytes) -> tuple[int, int] | None:
    """Bit rate [kbit/s] and bytes of the frame of layer III that a header begins, if it does."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, index, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or not 0 < index < 15 or rate == 3:
        return None
    bitrate = _BITRATES[3 if version == 3 else 2][index - 1]
    size = (144 if version == 3 else 72) * bitrate * 1000 // _RATES[version][rate] + (header[2] >> 1 & 1)
    return bitrate, size
