"""Sound files: nothing is lost, altered or padded without saying so, and every broken file is named."""

import struct

import numpy as np
import pytest
import soundfile
import torch

from wavenet.audio import READABLE, read_audio, read_info, read_segment, resample, resampled_length, write_audio
from wavenet.errors import UserError


def _noise(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-20000, 20000, length).astype(np.int16)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_16_bit_recordings_survive_bit_exactly(tmp_path, suffix):
    pcm = np.concatenate([_noise(999), [-32768, 32767, 0]]).astype(np.int16)
    soundfile.write(tmp_path / f"a{suffix}", pcm, 16000)
    wav, info = read_audio(tmp_path / f"a{suffix}")
    assert wav.dtype == torch.float32
    assert (info.sample_rate, info.channels, info.frames) == (16000, 1, len(pcm))
    assert write_audio(tmp_path / f"b{suffix}", wav, 16000) == 0
    again, rate = soundfile.read(tmp_path / f"b{suffix}", dtype="int16")
    assert rate == 16000
    np.testing.assert_array_equal(again, pcm)


def test_writing_counts_what_it_clips(tmp_path):
    wav = torch.tensor([0.0, 1.0, -1.0, 1.2, -3.0, 0.5])
    assert write_audio(tmp_path / "a.wav", wav, 8000) == 2
    pcm, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    np.testing.assert_array_equal(pcm, [0, 32767, -32768, 32767, -32768, 16384])
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_writing_refuses_nan_and_unknown_formats(tmp_path):
    with pytest.raises(UserError, match=r"a\.wav: found NaN"):
        write_audio(tmp_path / "a.wav", torch.tensor([0.0, float("nan")]), 8000)
    with pytest.raises(UserError, match=r"a\.mp3: found suffix"):
        write_audio(tmp_path / "a.mp3", torch.zeros(8), 8000)
    with pytest.raises(OSError, match=r"a\.wav: cannot be written"):
        write_audio(tmp_path / "absent" / "a.wav", torch.zeros(8), 8000)
    assert not list(tmp_path.iterdir())


def test_stereo_is_mixed_down_and_said(tmp_path):
    left, right = _noise(500, 1), _noise(500, 2)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 8000)
    wav, info = read_audio(tmp_path / "a.wav")
    assert info.notes == ["stereo mixed down"]
    np.testing.assert_allclose(wav.numpy(), (left / 32768 + right / 32768) / 2, atol=1e-7)


def test_full_scale_is_counted_and_kept(tmp_path):
    pcm = np.concatenate([_noise(95), [32767, 32767, -32768, 32766, -32766]]).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", pcm, 8000)
    wav, info = read_audio(tmp_path / "a.wav")
    assert info.full_scale == 3
    assert info.notes == ["clipped: 3 of 100 samples at full scale"]
    np.testing.assert_array_equal(wav.numpy() * 32768, pcm)


def test_float_files_beyond_full_scale_are_not_altered(tmp_path):
    samples = np.array([0.1, 1.7, -2.0], np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")
    wav, info = read_audio(tmp_path / "a.wav")
    np.testing.assert_array_equal(wav.numpy(), samples)
    assert info.full_scale == 2


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_segments_are_the_whole_file_cut(tmp_path, suffix):
    soundfile.write(tmp_path / f"a{suffix}", np.stack([_noise(30000, 3), _noise(30000, 4)], axis=1), 8000)
    wav, _ = read_audio(tmp_path / f"a{suffix}")
    for start, length in ((0, 10), (4095, 2), (12345, 6789), (29999, 1)):
        assert torch.equal(read_segment(tmp_path / f"a{suffix}", start, length), wav[start : start + length])
    with pytest.raises(UserError, match="truncated"):
        read_segment(tmp_path / f"a{suffix}", 29000, 1001)


@pytest.mark.parametrize(("from_rate", "to_rate"), [(24000, 22050), (24000, 8000), (8000, 22050), (44100, 48000)])
def test_resampling_keeps_a_tone_and_its_length(from_rate, to_rate):
    for frames in (1, 7, 999, from_rate // 2 + 1):
        length = resampled_length(frames, from_rate, to_rate)
        assert len(resample(torch.zeros(frames), from_rate, to_rate)) == length
        assert length / to_rate <= frames / from_rate < (length + 1) / to_rate
    tone, expected = (
        torch.sin(2 * torch.pi * 440 * torch.arange(rate, dtype=torch.float64) / rate).float()
        for rate in (from_rate, to_rate)
    )
    middle = slice(to_rate // 10, -to_rate // 10)
    torch.testing.assert_close(resample(tone, from_rate, to_rate)[middle], expected[middle], atol=1e-4, rtol=0)


def test_resampling_on_reading_is_said(tmp_path):
    soundfile.write(tmp_path / "a.wav", _noise(24000), 24000)
    wav, info = read_audio(tmp_path / "a.wav", 22050)
    assert len(wav) == 22050
    assert (info.sample_rate, info.frames, info.notes) == (24000, 24000, ["resampled 24000 -> 22050 Hz"])
    assert read_audio(tmp_path / "a.wav", 24000)[1].notes == []


def test_every_broken_file_is_named_on_one_line(tmp_path):
    whole = {suffix: tmp_path / f"whole{suffix}" for suffix in (".wav", ".flac")}
    for path in whole.values():
        soundfile.write(path, _noise(20000), 8000)
    half = {suffix: path.read_bytes()[: path.stat().st_size // 2] for suffix, path in whole.items()}
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no sound at all")
    (tmp_path / "half.wav").write_bytes(half[".wav"])
    (tmp_path / "half.flac").write_bytes(half[".flac"])
    soundfile.write(tmp_path / "void.wav", np.zeros(0, np.int16), 8000)
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan], np.float32), 8000, subtype="FLOAT")
    expected = {
        "absent.wav": "no such file",
        "empty.wav": "empty file",
        "text.wav": "unreadable",
        "half.wav": "truncated",
        "half.flac": "truncated|unreadable",
        "void.wav": "empty recording",
        "nan.wav": "NaN",
    }
    for name, reason in expected.items():
        with pytest.raises(UserError, match=f"{name}: found .*({reason}).*, expected") as error:
            read_audio(tmp_path / name)
        assert "\n" not in str(error.value)


CODED = {"a.mp3": {}, "a.ogg": {}, "a.opus": {"format": "OGG", "subtype": "OPUS"}}
CODED = {name: kind for name, kind in CODED.items() if name.endswith(READABLE)}


def coded(folder, name, length=20000, rate=8000):
    """Noise that swells, in a file of a compressed format, and what libsndfile decodes of it."""
    samples = 0.2 * np.random.default_rng(0).standard_normal(length) * np.linspace(0, 1, length)
    soundfile.write(folder / name, samples, rate, **CODED[name])
    return soundfile.read(folder / name, dtype="float32")[0]


@pytest.mark.parametrize("name", CODED)
def test_compressed_files_have_the_length_they_state_and_any_cut_is_told(tmp_path, name, capfd):
    """Padding of the coder is no audio: as many samples as went in. Half a file is one line, not half the sound."""
    whole = coded(tmp_path, name)
    wav, info = read_audio(tmp_path / name)
    assert len(whole) == len(wav) == info.frames == 20000
    assert info.notes == [f"compressed with loss ({'MP3' if name == 'a.mp3' else 'OGG'})"]
    for start, length in ((0, 10), (12345, 6789), (19999, 1)):
        assert torch.equal(read_segment(tmp_path / name, start, length), wav[start : start + length])
    data = (tmp_path / name).read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        (tmp_path / f"cut{name}").write_bytes(data[: int(share * len(data))])
        with pytest.raises(UserError, match=f"cut{name}: found a truncated file"):
            read_audio(tmp_path / f"cut{name}")


def test_an_mp3_that_does_not_state_its_length_is_read_where_that_is_known(tmp_path):
    """Of one bit rate its bytes say it; of a varying one libsndfile guesses, and half of the sound may be missing."""
    pytest.importorskip("soundfile", "0.13")  # writes either
    if ".mp3" not in READABLE:
        pytest.skip("this libsndfile reads no MP3")
    for mode in ("VARIABLE", "CONSTANT"):
        path = tmp_path / "a.mp3"
        samples = np.concatenate([np.zeros(20000), 0.3 * np.random.default_rng(0).standard_normal(40000)])
        soundfile.write(path, samples, 24000, bitrate_mode=mode, compression_level=0.5)
        data = path.read_bytes()
        tag = max(data.find(b"Xing"), data.find(b"Info"))
        path.write_bytes(data[data.find(data[:2], tag) :])  # without the first frame, which is the tag
        if mode == "VARIABLE":
            with pytest.raises(UserError, match=r"a\.mp3: found an MP3 of varying bit rate that does not state"):
                read_audio(path)
        else:
            wav, info = read_audio(path)
            assert 60000 <= len(wav) == info.frames < 60000 + 3 * 1152
            path.write_bytes(path.read_bytes()[:-50])
            with pytest.raises(UserError, match=r"a\.mp3: found a truncated file, expected 50 more bytes"):
                read_audio(path)


def test_streamed_wav_without_a_length_is_no_truncated_file(tmp_path):
    soundfile.write(tmp_path / "a.wav", _noise(1000), 8000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "a.wav").write_bytes(data)
    assert read_info(tmp_path / "a.wav").frames == 1000
