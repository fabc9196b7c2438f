"""Configuration: round trips, unknown keys and senseless values named in one line, numbers as numbers."""

import pytest

from distill.config import StudentConfig
from wavenet.arguments import from_dict, to_dict
from wavenet.config import AudioConfig, DataConfig, StackConfig, TeacherConfig, TrainConfig
from wavenet.errors import UserError


@pytest.mark.parametrize(
    "config",
    [
        TeacherConfig(stack=StackConfig(layers=3), gain=2.5, speakers=4),
        StudentConfig(flows=[StackConfig(cycles=1), StackConfig(cycles=3)], log_scale_range=(-6.0, 4.0)),
        TrainConfig(lr=5e-4, betas=(0.8, 0.99)),
        AudioConfig(),
    ],
)
def test_plain_values_and_back(config):
    assert from_dict(type(config), to_dict(config)) == config


def test_missing_keys_take_their_defaults():
    assert from_dict(TrainConfig, {"lr": 0.5}) == TrainConfig(lr=0.5)


def test_yaml_numbers_in_exponent_form_are_numbers():
    """YAML 1.1 reads 5e-4 as a string."""
    assert from_dict(TrainConfig, {"lr": "5e-4"}).lr == 5e-4


@pytest.mark.parametrize(
    ("cls", "values", "parts"),
    [
        (TeacherConfig, {"depth": 3}, ["depth"]),
        (TeacherConfig, {"stack": {"depth": 3}}, ["stack", "depth"]),
        (TeacherConfig, {"distribution": {"kind": "laplace"}}, ["distribution", "laplace"]),
        (TeacherConfig, {"pre_emphasis": 1.0}, ["pre_emphasis: found 1.0, expected 0 <= pre_emphasis < 1"]),
        (TeacherConfig, {"gain": "loud"}, ["gain", "loud"]),
        (StackConfig, {"gate_channels": 7}, ["stack.gate_channels: found 7, expected an even number"]),
        (StackConfig, {"layers": 0}, ["stack.layers: found 0, expected a positive integer"]),
        (StudentConfig, {"flows": []}, ["flows: found 0, expected at least one flow"]),
        (StudentConfig, {"log_scale_range": [5.0, -7.0]}, ["log_scale_range: found [5.0, -7.0]"]),
        (AudioConfig, {"hop_length": 255}, ["audio.hop_length: found 255"]),
        (AudioConfig, {"f_max": 20000.0}, ["audio.f_max: found 20000.0, expected f_min = 0.0 < f_max <= 11025.0"]),
        (AudioConfig, {"win_length": 2048}, ["audio.win_length: found 2048, expected at most n_fft = 1024"]),
        (TrainConfig, {"lr": -1.0}, ["train.lr: found -1.0, expected a positive number"]),
        (TrainConfig, {"betas": [1.5, 0.9]}, ["train.betas: found [1.5, 0.9]"]),
        (TrainConfig, {"weight_decay": -1.0}, ["train.weight_decay: found -1.0"]),
        (TrainConfig, {"threads": -1}, ["train.threads: found -1"]),
        (TrainConfig, {"warmup_steps": -3}, ["train.warmup_steps: found -3"]),
        (TrainConfig, {"halve_every": 0}, ["train.halve_every: found 0"]),
        (TeacherConfig, {"speaker_channels": 0}, ["speaker_channels: found 0"]),
        (DataConfig, {"root": ""}, ["data.root: found ''"]),
        (TrainConfig, {"ema_decay": 1.0}, ["train.ema_decay: found 1.0"]),
    ],
)
def test_mistakes_are_named_in_one_line(cls, values, parts):
    with pytest.raises(UserError) as caught:
        from_dict(cls, values)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_dilations():
    assert StackConfig(cycles=2, layers=4).dilations == [1, 2, 4, 8, 1, 2, 4, 8]
