"""Perceptual terms: zero at identity, right gradients, the Gram matrix; they hear whispering and wrong phones."""

from pathlib import Path

import pytest
import torch

import distill.phones.train
from distill import models
from distill.baselines import griffin_lim, mel_shaped_noise
from distill.perceptual import features, gram, perceptual_terms
from distill.phones.classifier import PhoneClassifier, PhoneConfig
from tests.conftest import AUDIO, randomise
from wavenet.data import load_clip, open_corpus
from wavenet.features import LogMel

CONFIG = PhoneConfig(AUDIO, [3, 5], [4, 4], [8, 6], context_layers=2, gain=3.0)
HOP = AUDIO.hop_length
RECIPE = Path(__file__).resolve().parent.parent / "configs" / "demo_phones.yaml"


@pytest.fixture
def phones():
    torch.manual_seed(0)
    model = randomise(PhoneClassifier(CONFIG).double())
    assert isinstance(model, PhoneClassifier)
    return model.eval()


def noise(seed: int, batch: int = 2, frames: int = 5) -> torch.Tensor:
    return 0.2 * torch.randn(batch, frames * HOP, generator=torch.Generator().manual_seed(seed)).double()


def test_zero_at_identity_and_only_there(phones):
    wav = noise(0)
    assert [float(term) for term in perceptual_terms(phones, wav, wav).values()] == [0.0, 0.0]
    apart = perceptual_terms(phones, wav, noise(1))
    assert set(apart) == {"perceptual/feature", "perceptual/style"}
    assert all(term.shape == () and float(term) > 1e-3 for term in apart.values())


def test_gram_against_an_explicit_loop():
    layer = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0)).double()
    expected = torch.zeros(2, 3, 3).double()
    for item in range(2):
        for i in range(3):
            for j in range(3):
                for time in range(7):
                    expected[item, i, j] += layer[item, i, time] * layer[item, j, time] / 7
    torch.testing.assert_close(gram(layer), expected)


def test_terms_against_their_definition(phones):
    signal, recording = noise(0), noise(1)
    feature, style = [], []
    for x, y in zip(phones(signal).features, phones(recording).features, strict=True):
        feature.append(((x - y) ** 2).sum() / (y**2).sum())
        g, h = (torch.einsum("bit,bjt->bij", f, f) / f.shape[2] for f in (x, y))
        style.append(((g - h) ** 2).sum() / (h**2).sum())
    assert len(feature) == 4
    found = perceptual_terms(phones, signal, recording)
    torch.testing.assert_close(found["perceptual/feature"], sum(feature[1:]) / 3)  # the first is not at frame rate
    torch.testing.assert_close(found["perceptual/style"], sum(style) / 4)


@pytest.mark.parametrize("term", ["perceptual/feature", "perceptual/style"])
def test_gradient_by_finite_differences(phones, term):
    signal, recording = noise(0, 1).requires_grad_(), noise(1, 1)
    (gradient,) = torch.autograd.grad(perceptual_terms(phones, signal, recording)[term], signal)
    assert float(gradient.abs().max()) > 1e-4
    step = 1e-6
    for place in range(0, signal.shape[1], 7):
        moved = torch.zeros_like(signal)
        moved[0, place] = step
        up, down = (perceptual_terms(phones, (signal + sign * moved).detach(), recording)[term] for sign in (1, -1))
        assert float(gradient[0, place]) == pytest.approx(float(up - down) / (2 * step), rel=1e-4, abs=1e-7)


def test_frozen(phones):
    """The signal gets a gradient, the weights and the recording none, even where they ask for one."""
    signal, recording = noise(0).requires_grad_(), noise(1).requires_grad_()
    assert all(parameter.requires_grad for parameter in phones.parameters())
    sum(perceptual_terms(phones, signal, recording).values()).backward()
    assert signal.grad is not None
    assert float(signal.grad.abs().sum()) > 0
    assert recording.grad is None
    assert all(parameter.grad is None for parameter in phones.parameters())
    phones.train()
    with pytest.raises(AssertionError, match="training"):
        perceptual_terms(phones, signal, recording)


def test_style_does_not_mind_when_and_features_do(phones):
    """A circular shift by whole hops of a signal with silence around, longer than the receptive field."""
    silence = torch.zeros(1, 20 * HOP).double()
    assert silence.shape[1] > phones.receptive_field
    recording = torch.cat([silence, noise(0, 1, 30), silence], 1)
    shifted = perceptual_terms(phones, recording.roll(3 * HOP, 1), recording)
    assert float(shifted["perceptual/style"]) < 1e-20
    assert float(shifted["perceptual/feature"]) > 0.01
    part_of_a_hop = perceptual_terms(phones, recording.roll(1, 1), recording)
    assert float(part_of_a_hop["perceptual/style"]) > 1e-12


def test_silence_is_finite(phones):
    silence = torch.zeros(1, 4 * HOP).double().requires_grad_()
    terms = perceptual_terms(phones, silence, noise(1, 1, 4)) | {
        f"{name} of silence": term for name, term in perceptual_terms(phones, silence, torch.zeros(1, 64)).items()
    }
    total = sum(terms.values())
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(silence.grad).all()


def test_weights_decide_the_precision_under_autocast(phones):
    model = phones.float()
    wav = noise(0).float()
    plain = features(model, wav)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(x, y) for x, y in zip(features(model, wav), plain, strict=True))


@pytest.fixture(scope="module")
def demo_classifier(tmp_path_factory):
    """The demo's classifier after a quarter of its steps, and held-out recordings that it has not seen."""
    folder = tmp_path_factory.mktemp("phones")
    steps = ["--train.steps", "400", "--train.validate_every", "400"]
    call = ["--config", str(RECIPE), "--out", str(folder / "run"), "--alignments", str(folder / "alignments"), *steps]
    assert distill.phones.train.main(call) == 0
    model = models.load(folder / "run")
    corpus = open_corpus("bundled", model.config.audio)
    return model, [load_clip(clip, model.config.audio) for clip in corpus.dev + corpus.test]


@pytest.mark.slow
def test_whispering_and_wrong_phones_cost_more_than_a_resynthesis(demo_classifier):
    """A classifier really trained: noise in the clip's own mel, and other words, are farther off than Griffin-Lim."""
    phones, clips = demo_classifier
    audio = phones.config.audio
    length = min(len(wav) for wav in clips)
    sums: dict[str, float] = {}
    for number, wav in enumerate(clips):
        mel = LogMel(audio)(wav[None])
        generator = torch.Generator().manual_seed(number)
        candidates = {
            "resynthesis": griffin_lim(mel[0], audio, generator=generator),
            "whisper": mel_shaped_noise(mel[0], audio, generator=generator),
            "other words": clips[number - 1],
        }
        for kind, signal in candidates.items():
            for name, term in perceptual_terms(phones, signal[None, :length], wav[None, :length]).items():
                sums[f"{kind} {name}"] = sums.get(f"{kind} {name}", 0.0) + float(term)
    assert sums["whisper perceptual/feature"] > 1.05 * sums["resynthesis perceptual/feature"]
    for term in ("perceptual/feature", "perceptual/style"):
        assert sums[f"other words {term}"] > 1.5 * sums[f"resynthesis {term}"]
