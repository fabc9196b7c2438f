"""Grid and mu-law: round trips, edges, nearest levels, widths."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wavenet.errors import UserError
from wavenet.quantize import Grid, MuLaw


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_grid_levels_round_trip_and_span_the_interval(bits):
    grid = Grid(bits)
    index = torch.arange(grid.levels)
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(grid.index(grid.value(index, dtype)), index)
    values = grid.value(index, torch.float64)
    assert (values[0], values[-1]) == (-1.0, 1.0)
    torch.testing.assert_close(values.diff(), torch.full((grid.levels - 1,), grid.step, dtype=torch.float64))
    assert grid.half_step == grid.step / 2


@settings(max_examples=50, deadline=None)
@given(st.floats(-1.5, 1.5), st.sampled_from([4, 8, 16]))
def test_grid_rounds_to_the_nearest_level(x, bits):
    grid = Grid(bits)
    value = torch.tensor(x, dtype=torch.float64)
    rounded = float(grid.quantize(value))
    assert abs(rounded - min(1.0, max(-1.0, x))) <= grid.half_step * (1 + 1e-9)


def test_sixteen_bit_recordings_keep_their_order_on_the_grid():
    """PCM16 is k / 32768, one level short of the symmetric grid: one pair in 65536 falls together, none is swapped."""
    pcm = torch.arange(-32768, 32768) / 32768
    for dtype in (torch.float32, torch.float64):
        steps = Grid(16).index(pcm.to(dtype)).diff()
        assert (steps == 1).sum() == 65534
        assert (steps == 0).sum() == 1


@pytest.mark.parametrize("bits", [1, 2, 8, 12])
def test_mulaw_classes_round_trip_and_tile_the_interval(bits):
    mulaw = MuLaw(bits)
    index = torch.arange(mulaw.levels)
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(mulaw.encode(mulaw.decode(index, dtype)), index)
    edges = mulaw.edges()
    assert (float(edges[0]), float(edges[-1])) == (-1.0, 1.0)
    assert float(mulaw.log_width().exp().sum()) == pytest.approx(2.0, abs=1e-12)
    inside = edges[:-1] + 1e-9
    assert torch.equal(mulaw.encode(inside), index)
    assert torch.equal(mulaw.encode(edges[1:] - 1e-9), index)


@pytest.mark.parametrize("bits", [1, 2, 8, 12, 16])
def test_mulaw_edges_are_exact_images_and_open_their_own_class(bits):
    mulaw = MuLaw(bits)
    edges = mulaw.edges()
    assert torch.equal(mulaw.encode(edges[:-1]), torch.arange(mulaw.levels))
    assert torch.equal(mulaw.encode(edges[-1]), torch.tensor(mulaw.levels - 1))
    assert torch.equal(edges, -edges.flip(0))
    with mpmath.workdps(40):
        for i in range(0, mulaw.levels + 1, max(1, mulaw.levels // 64)):
            companded = mpmath.mpf(2 * i) / mulaw.levels - 1
            image = mpmath.sign(companded) * (mpmath.mpf(mulaw.levels) ** abs(companded) - 1) / (mulaw.levels - 1)
            assert float(edges[i]) == pytest.approx(float(image), rel=1e-13, abs=1e-15)


@settings(max_examples=50, deadline=None)
@given(st.floats(-1.0, 1.0, exclude_max=True), st.sampled_from([2, 8, 12]), st.booleans())
def test_mulaw_class_holds_its_sample(x, bits, single):
    mulaw = MuLaw(bits)
    sample = torch.tensor(x, dtype=torch.float32 if single else torch.float64)
    index, edges = int(mulaw.encode(sample)), mulaw.edges()
    assert float(edges[index]) <= float(sample)
    assert float(sample) < float(edges[index + 1]) or float(sample) == 1.0
    centre = mulaw.decode(torch.tensor(index), torch.float64)
    assert abs(float(mulaw.compress(centre) - mulaw.compress(sample.double()))) <= (1 + 1e-6) / mulaw.levels


def test_mulaw_encodes_signals_laid_out_in_any_order():
    wav = torch.linspace(-1, 1, 12).reshape(3, 4)
    assert torch.equal(MuLaw(8).encode(wav.T), MuLaw(8).encode(wav).T)


def test_mulaw_is_g711s_curve():
    x = torch.linspace(-1, 1, 101, dtype=torch.float64)
    expected = [math.copysign(math.log(1 + 255 * abs(v)) / math.log(256), v) for v in x.tolist()]
    torch.testing.assert_close(MuLaw(8).compress(x), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(MuLaw(8).expand(MuLaw(8).compress(x)), x)


def test_values_beyond_full_scale_take_the_edge():
    beyond = torch.tensor([-3.0, 3.0])
    assert MuLaw(8).encode(beyond).tolist() == [0, 255]
    assert Grid(8).index(beyond).tolist() == [0, 255]


def test_senseless_bits_are_named():
    with pytest.raises(UserError, match="bits: found 0, expected 1 to 24"):
        Grid(0)
    with pytest.raises(UserError, match="bits: found 17, expected 1 to 16"):
        MuLaw(17)
