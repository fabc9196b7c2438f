"""Counter-based noise: the published test vectors, independence of place and batch, uniformity over many seeds."""

import pytest
import torch

from tests.conftest import random_mel, small_teacher
from wavenet.errors import UserError
from wavenet.noise import philox, uniforms

# Known answers of the generator's authors (Random123, kat_vectors: philox4x32 10).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    assert tuple(philox(torch.tensor(counter), torch.tensor(key)).tolist()) == expected


def test_a_stream_is_the_same_in_pieces_in_a_batch_and_in_any_precision():
    whole = uniforms([3, 2**63 + 5], 1000, 2)
    assert torch.equal(uniforms([3], 300, 2, first=700), whole[:1, 700:])
    assert torch.equal(uniforms([2**63 + 5], 1000, 1), whole[1:, :, :1])
    assert torch.equal(uniforms(range(3), 2**18, 1), torch.cat([uniforms([n], 2**18) for n in range(3)]))
    assert torch.equal(uniforms([3], 1000, 2, dtype=torch.float64).float(), whole[:1])
    assert not torch.equal(uniforms([3], 10, first=2**32), uniforms([3], 10))


def test_never_zero_or_one():
    extreme = (torch.tensor([0.0, 2**23 - 1]) + 0.5) * 2.0**-23
    assert float(extreme[0]) > 0
    assert float(extreme[1]) < 1
    values = uniforms(range(64), 20_000)
    assert 0 < float(values.min()) < 1e-5
    assert 1 - 1e-5 < float(values.max()) < 1


def test_uniform_within_streams_and_across_seeds():
    """Chi-square in 64 cells: along each of 2,000 streams, across seeds at each time, and all together."""
    values = uniforms(range(2000), 2048, 1)[..., 0]
    cells = (values * 64).long()
    for counts, expected in ((_counts(cells), 2048 / 64), (_counts(cells.T), 2000 / 64)):
        chi_square = ((counts - expected) ** 2 / expected).sum(1)
        standard = (chi_square - 63) / (2 * 63) ** 0.5
        assert abs(float(standard.mean())) < 0.12  # 0.02 is its standard error
        assert float(standard.std()) == pytest.approx(1.0, abs=0.1)
    total = _counts(cells.flatten()[None])[0]
    assert float(((total - total.mean()) ** 2 / total.mean()).sum()) < 103.4  # one in a thousand at 63


def test_neighbouring_seeds_times_and_channels_do_not_go_together():
    values = uniforms(range(500), 2000, 2) - 0.5
    pairs = [(values[:-1], values[1:]), (values[:, :-1], values[:, 1:]), (values[..., 0], values[..., 1])]
    for left, right in pairs:
        correlation = float((left * right).mean() * 12)
        assert abs(correlation) < 4 / left.numel() ** 0.5


def test_seeds_of_a_teacher():
    teacher, mel = small_teacher("gaussian"), random_mel(3, 3)
    together = teacher.sample(mel, seed=[7, 8, 9])
    assert torch.equal(together, teacher.sample(mel, seed=7))
    torch.testing.assert_close(teacher.sample(mel[1:2], seed=8), together[1:2], rtol=0, atol=1e-12)
    with pytest.raises(UserError, match=r"seed: found \[1\], expected one for each of 3 signals"):
        teacher.sample(mel, seed=[1])
    with pytest.raises(UserError, match=r"generator: found .*, expected none beside a seed"):
        teacher.sample(mel, seed=1, generator=torch.Generator())
    assert torch.equal(together, teacher.sample(mel, seed=torch.tensor(7)))
    with pytest.raises(UserError, match=r"seed: found 1\.5, expected a whole number"):
        teacher.sample(mel, seed=1.5)
    with pytest.raises(UserError, match="seed: found -1, expected 0 <= seed"):
        teacher.sample(mel, seed=-1)


def _counts(cells: torch.Tensor) -> torch.Tensor:
    """How often each of 64 cells occurs in each row."""
    return torch.zeros(len(cells), 64).scatter_add_(1, cells, torch.ones(cells.shape))
