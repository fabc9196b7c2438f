"""The picture shows what is in the signal: pitch at its row, silence dark, louder lighter."""

import numpy as np
import torch

from wavenet.spectrogram import decibels, picture


def sine(frequency: float, amplitude: float = 1.0) -> torch.Tensor:
    return amplitude * torch.sin(2 * torch.pi * frequency * torch.arange(8000) / 8000)


def test_a_sine_lights_its_own_row():
    rows = picture(sine(1000.0), 8000, height=401).sum(2).mean(1)
    hertz = (400 - int(np.argmax(rows))) / 400 * 4000
    assert abs(hertz - 1000) < 8000 / 256  # one bin


def test_silence_is_dark_and_louder_is_lighter():
    assert picture(torch.zeros(4000), 8000).max() <= 4
    both = torch.cat([sine(1000.0, 0.001), sine(1000.0)])
    columns = picture(both, 8000).sum((0, 2), dtype=np.int64)
    assert columns[: len(columns) // 3].mean() < columns[-len(columns) // 3 :].mean()


def test_decibels_of_a_full_scale_sine_are_zero():
    level = decibels(sine(1000.0), 256, 64)
    assert abs(float(level[:, 10:-10].max(0).values.mean())) < 0.1
    quiet = decibels(sine(1000.0, 0.01), 256, 64)
    assert abs(float(quiet[:, 10:-10].max(0).values.mean()) + 40) < 0.1


def test_lightness_rises_evenly_with_level():
    """CIE lightness of the picture of a sine that fades by 70 dB: a straight line to within 3 of 100."""
    seconds = torch.arange(32000) / 8000
    fading = sine(1000.0).repeat(4) * 10 ** (-3.5 * seconds / 4)
    colours = picture(fading, 8000, height=129)
    row = colours[int(colours.sum((1, 2), dtype=np.int64).argmax()), 8:-8] / 255
    linear = np.where(row <= 0.04045, row / 12.92, ((row + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    place = np.arange(len(lightness))
    fit = np.polynomial.Polynomial.fit(place, lightness, 1)
    assert np.abs(lightness - fit(place)).max() < 3
    assert lightness[0] - lightness[-1] > 70


def test_samples_that_are_not_finite_still_give_a_picture():
    wav = sine(1000.0)
    wav[4000] = float("nan")
    wav[4001] = float("inf")
    assert picture(wav, 8000).max() > 200
    assert picture(torch.full((4000,), float("nan")), 8000).max() <= 4
    assert picture(torch.zeros(0), 8000).shape == (256, 1, 3)
