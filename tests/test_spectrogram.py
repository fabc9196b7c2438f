"""The picture shows what is in the signal: pitch at its row, silence dark, louder lighter."""

import numpy as np
import torch

from wavenet.spectrogram import decibels, picture


def sine(frequency: float, amplitude: float = 1.0) -> torch.Tensor:
    return amplitude * torch.sin(2 * torch.pi * frequency * torch.arange(8000) / 8000)


def test_a_sine_lights_its_own_row():
    rows = picture(sine(1000.0), 8000, height=401).sum(2).mean(1)
    hertz = (400 - int(np.argmax(rows))) / 400 * 4000
    assert abs(hertz - 1000) < 30


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
