"""What a recording and a sample have in common to a listener for phones: features and style of a frozen classifier.

van den Oord et al. 2017, arXiv 1711.10433, section 4.3; the two losses are those of Gatys et al. 2015, arXiv
1508.06576, and Johnson et al. 2016, arXiv 1603.08155, on the layers of distill.phones.classifier.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from distill.phones.classifier import PhoneClassifier

_SMALLEST = 1e-6  # mean square of features that are as good as silent: keeps the ratios finite


def perceptual_terms(phones: PhoneClassifier, signal: Tensor, recording: Tensor) -> dict[str, Tensor]:
    r"""Distance of signal (B, T) from recording (B, T), both plain audio: scalars, 0 where the two are equal.

        perceptual/feature = mean_l  sum |Phi_l(x) - Phi_l(y)|^2 / sum |Phi_l(y)|^2,     l at frame rate
        perceptual/style   = mean_l  sum |G_l(x) - G_l(y)|^2 / sum |G_l(y)|^2,   all l;  G_l = Phi_l Phi_l^T / N_l

    Phi_l (B, C, N_l) are the features of layer l, sums run over the whole batch. The paper leaves the normalisation
    open, and which layers; relative to the recording, every layer weighs alike whatever its size. Features say what is
    spoken when: of the layers at frame rate alone, for those before them follow the waveform, phases included, which
    no sample can have in common with the recording. The Gram matrices G_l (B, C, C), averages over time, say how it
    sounds, wherever in the crop.

    Gradients reach the signal (and no farther back than it comes from), never the classifier's weights, and not the
    recording. `phones` must be in eval mode. Computed in the precision of its weights, also under autocast.
    """
    assert not phones.training, "a classifier in training mode drops features at random"
    ours = features(phones, signal)
    with torch.no_grad():
        theirs = features(phones, recording)
    pairs, frames = list(zip(ours, theirs, strict=True)), ours[-1].shape[-1]
    return {
        "perceptual/feature": torch.stack([_relative(x, y) for x, y in pairs if x.shape[-1] == frames]).mean(),
        "perceptual/style": torch.stack([_relative(gram(x), gram(y)) for x, y in pairs]).mean(),
    }


def features(phones: PhoneClassifier, wav: Tensor) -> list[Tensor]:
    """Phi_l(wav) of every layer, (B, C, N_l), with the weights as constants."""
    weights = {name: parameter.detach() for name, parameter in phones.named_parameters()}
    with torch.autocast(wav.device.type, enabled=False):
        wav = wav.to(next(iter(weights.values())).dtype)
        found: list[Tensor] = functional_call(phones, weights, (wav,)).features
    return found


def gram(layer: Tensor) -> Tensor:
    """Time-averaged products of channels: (B, C, N) -> (B, C, C), symmetric and positive semi-definite."""
    return layer @ layer.mT / layer.shape[-1]


def _relative(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours - theirs).square().mean() / theirs.square().mean().clamp(min=_SMALLEST)
