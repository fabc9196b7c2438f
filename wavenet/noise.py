r"""Counter-based noise: the uniforms of sample t are a function of (seed, t) alone.

Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): ten rounds of

    (c_0, c_1, c_2, c_3) <- (high(M_1 c_2) ^ c_1 ^ k_0, low(M_1 c_2), high(M_0 c_0) ^ c_3 ^ k_1, low(M_0 c_0))

on the counter c = (t mod 2^32, t div 2^32, 0, 0) under the key k = seed, which moves by a constant from round to round.
No state: any stretch of any stream can be made anywhere, in any order, on any device, so a signal is the same alone, in
a batch, and in pieces.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wavenet.config import require

WORDS = 4  # uniforms that one counter gives
_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_STEPS = (0x9E3779B9, 0xBB67AE85)  # of the key: the golden ratio, sqrt(3) - 1
_ROUNDS = 10
_AT_ONCE = 2**18  # samples of all streams together
_BITS = 23  # of a uniform: with half a step added, neither 0 nor 1 in float32


def philox(counter: Tensor, key: Tensor) -> Tensor:
    """counter (..., 4), key (..., 2), words in int64 -> words (..., 4) in [0, 2^32)."""
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key.unbind(-1)
    for _ in range(_ROUNDS):
        # int64 products wrap as uint64's do, and the shift's sign bits are masked away.
        first, second = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        high0, low0 = (first >> 32) & _WORD, first & _WORD
        high1, low1 = (second >> 32) & _WORD, second & _WORD
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _STEPS[0]) & _WORD, (k1 + _STEPS[1]) & _WORD
    return torch.stack([c0, c1, c2, c3], -1)


def uniforms(
    seeds: Sequence[int],
    length: int,
    channels: int = 1,
    *,
    first: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Uniforms (B, length, channels) in (0, 1) for samples first, first + 1, ...: one stream for each seed.

    seeds: 0 <= seed < 2^64. channels: at most 4. The same numbers in float32 and float64. Raises UserError beyond.
    """
    require(1 <= channels <= WORDS, "channels", channels, f"1 to {WORDS}")
    for seed in seeds:
        require(0 <= seed < 2**64, "seed", seed, "0 <= seed < 2^64")
    parts = [part for seed in seeds for part in (seed & _WORD, seed >> 32)]
    key = torch.tensor(parts, dtype=torch.int64, device=device).view(-1, 2)
    found = torch.empty(len(seeds), length, channels, dtype=dtype, device=device)
    stretch = max(1, _AT_ONCE // max(1, len(seeds)))  # the words of all times would be 50 times the result
    for start in range(0, length, stretch):
        time = torch.arange(first + start, first + min(start + stretch, length), device=device)
        zero = torch.zeros_like(time)
        counter = torch.stack([time & _WORD, time >> 32, zero, zero], -1)
        words = philox(counter[None], key[:, None])[..., :channels]
        found[:, start : start + stretch] = ((words >> (32 - _BITS)).double() + 0.5) * 2.0**-_BITS
    return found
