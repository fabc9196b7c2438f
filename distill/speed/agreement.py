"""Whether two ways of sampling a model are the same computation: checked before either is timed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

TOLERANCE = 1e-4  # largest difference of samples inside [-1, 1] between two methods at the same noise
FLIPS = 1e-3  # largest share of samples that rounding may move across the edge of a level or class


def speakers_of(model: Any, batch: int, device: torch.device) -> dict[str, Tensor]:
    """The first voice for each of a batch, as a keyword of `sample`, where the model has several."""
    return {"speaker": torch.zeros(batch, dtype=torch.int64, device=device)} if model.config.speakers else {}


def difference(model: Any, mel: Tensor, method: str, reference: str, seed: int) -> tuple[float, float]:
    """Largest |difference| of the samples of two sequential methods at the same noise, and the reference's largest
    |sample|, mel (1, M, F)."""
    found, expected = (
        model.sample(mel, method=name, generator=torch.Generator().manual_seed(seed), **_extra(model, mel))
        for name in (method, reference)
    )
    return _apart(found, expected)


def engine_difference(model: Any, mel: Tensor, engine: Any, seed: int) -> tuple[float, float]:
    """The same of a student's samples by an engine and by torch."""
    found, expected = (
        model.sample(mel, generator=torch.Generator().manual_seed(seed), engine=one, **_extra(model, mel))
        for one in (engine, None)
    )
    return _apart(found, expected)


def allowed(largest: float) -> float:
    """How far two methods may be apart: TOLERANCE, or as much of a largest sample beyond full scale, as rounding is."""
    return TOLERANCE * max(1.0, largest)


@torch.no_grad()
def not_given_back(model: Any, mel: Tensor, method: str, seed: int) -> float:
    """Share of a method's samples that one parallel pass over its whole output, at its noise, does not give back.

    This reaches every dilation, which a short comparison with the reference does not. A level or class may flip where a
    uniform falls within rounding of its edge; a ring buffer that is wrong moves most samples.
    """
    wav = model.sample(mel, method=method, generator=torch.Generator().manual_seed(seed), **_extra(model, mel))
    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand(*wav.shape, model.noise_channels, generator=generator, dtype=mel.dtype).to(mel.device)
    again = model(wav, mel, **_extra(model, mel)).transform(uniforms)
    return float((~((again - wav).abs() <= allowed(float(wav.abs().max())))).double().mean())


def _apart(found: Tensor, expected: Tensor) -> tuple[float, float]:
    return float((found - expected).abs().max()), float(expected.abs().max())


def _extra(model: Any, mel: Tensor) -> dict[str, Tensor]:
    return speakers_of(model, mel.shape[0], mel.device)
