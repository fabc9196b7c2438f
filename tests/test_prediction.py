"""Linear prediction inside the teacher: the filters, the density that moves through them, every sampler."""

import dataclasses
import math

import pytest
import torch

from tests.conftest import AUDIO, random_mel, small_teacher
from tests.test_causality import seen
from tests.test_samplers import draw, methods
from wavenet.config import TeacherConfig
from wavenet.emphasis import pre_emphasis
from wavenet.errors import UserError
from wavenet.features import LogMel
from wavenet.fused.lattice import colour
from wavenet.prediction import LinearPrediction, Stepwise, reflections, whiten
from wavenet.sampling.graph import sample_in_blocks
from wavenet.sampling.residual import sample_by_residual
from wavenet.teacher import Teacher

ORDER = 5
KINDS = ("mol", "gaussian")


def wild_mel(frames: int) -> torch.Tensor:
    """Frames in no order, loud lines that jump between bands from one to the next: what broke direct filters."""
    generator = torch.Generator().manual_seed(1)
    mel = torch.full((1, AUDIO.n_mels, frames), -9.0, dtype=torch.float64)
    band = torch.randint(AUDIO.n_mels, (frames,), generator=generator)
    mel[0, band, torch.arange(frames)] = 3.0
    return mel


def jumps(order: int = 12, frames: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """The lattices of a wild mel, and the kernel between them, in float64."""
    prediction = LinearPrediction(AUDIO, order, 0.9, 2.0).double()
    return prediction(wild_mel(frames)), prediction.kernel


def predictor(reflection: torch.Tensor) -> torch.Tensor:
    """1, a_1, ..., a_p of k_1 ... k_p, by the step-up recursion."""
    found = torch.ones(1, dtype=torch.float64)
    for k in reflection:
        longer = torch.nn.functional.pad(found, (0, 1))
        found = longer + k * longer.flip(0)
    return found


def spectra(count: int) -> torch.Tensor:
    """Power of random envelopes, 60 dB and more between their bins."""
    return torch.exp(3 * torch.randn(count, 33, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def test_recursion_solves_the_normal_equations():
    """The predictor of the reflections is the one that torch.linalg finds, and sigma^2 its error."""
    power = spectra(4)
    level, reflection = reflections(power, 8)
    assert float(reflection.abs().max()) < 1
    for spectrum, variance, k in zip(power, level, reflection, strict=True):
        correlation = torch.fft.irfft(spectrum)[:9]
        correlation[0] = variance
        places = torch.arange(8)
        normal = correlation[(places[:, None] - places).abs()]
        expected = torch.linalg.solve(normal, -correlation[1:])
        torch.testing.assert_close(predictor(k)[1:], expected, rtol=1e-8, atol=1e-10)
        error = correlation[0] + expected @ correlation[1:]
        torch.testing.assert_close(variance * (1 - k**2).prod(), error, rtol=1e-8, atol=0)


def test_predictor_of_a_known_process():
    """An autoregression's own spectrum gives its coefficients and the scale of its noise back."""
    coefficients = torch.tensor([1.0, -1.2, 0.7, -0.1], dtype=torch.float64)
    power = (0.3 / torch.fft.rfft(coefficients, 4096).abs()).square()
    level, reflection = reflections(power, 3)
    torch.testing.assert_close(predictor(reflection), coefficients, rtol=0, atol=2e-3)
    assert abs(float((level * (1 - reflection**2).prod()).sqrt()) - 0.3) < 1e-3


def test_a_lattice_at_rest_is_the_predictor():
    """Where frames do not change it is the filter (1, a_1, ..., a_p) / sigma."""
    level, reflection = reflections(spectra(1), 8)
    lattice = torch.cat([0.5 * level.log()[:, None], reflection.atanh()], 1)[..., None].expand(1, 9, 6)
    signal = torch.randn(1, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rest, scale = whiten(signal, lattice, LinearPrediction(AUDIO, 8, 0.9, 2.0).double().kernel)
    sigma = (level * (1 - reflection**2).prod(1)).sqrt()
    taps = predictor(reflection[0]) / sigma
    expected = torch.nn.functional.conv1d(torch.nn.functional.pad(signal[:, None], (8, 0)), taps.flip(0)[None, None])
    torch.testing.assert_close(rest + scale * signal, expected[:, 0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(scale, (1 / sigma)[:, None].expand_as(scale), rtol=1e-10, atol=0)


def test_energy_of_speech_is_bounded_whatever_the_mel():
    """White noise of unit variance comes out with variance r_0 at most at every sample, though resonances jump.

    The covariance is that of the whole linear map, inverted as a matrix: no sampling.
    """
    lattice, kernel = jumps()
    length = 16 * 12
    identity = torch.eye(length, dtype=torch.float64)
    rest, scale = whiten(identity, lattice.expand(length, -1, -1), kernel)
    whitening = (rest + scale * identity).T
    colouring = torch.linalg.solve_triangular(whitening, identity, upper=False)
    level = torch.exp((lattice[:, 0].unfold(1, 3, 1) @ kernel).flatten())
    ratio = colouring.square().sum(1).sqrt() / level
    assert float(ratio.max()) <= 1 + 1e-9
    assert float(ratio[AUDIO.hop_length :].min()) > 0.5  # and it reaches that level
    assert float(lattice[:, 1:].tanh().abs().max()) > 0.97  # on sharp resonances


def test_the_way_back():
    """`colour` undoes `whiten` on mels that jump, in double precision and, without growing, in single."""
    lattice, kernel = jumps(frames=400)
    noise = torch.randn(1, 16 * 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signal = colour(noise, lattice, kernel)
    rest, scale = whiten(signal, lattice, kernel)
    torch.testing.assert_close(rest + scale * signal, noise, rtol=0, atol=1e-9)
    single = colour(noise.float(), lattice.float(), kernel.float())
    error = (single - signal).square().mean().sqrt() / signal.square().mean().sqrt()
    assert float(error) < 1e-6


def test_one_sample_after_the_other():
    lattice, kernel = jumps(ORDER)
    signal = torch.randn(1, 16 * 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rest, scale = whiten(signal, lattice, kernel)
    steps = Stepwise(lattice, kernel)
    found, last = [], torch.zeros(1, 1, dtype=torch.float64)
    for t in range(signal.shape[1]):
        found.append((steps.take(last), *steps.ahead()))
        last = signal[:, t : t + 1]
    taken, ahead, scales = (torch.cat(part, 1) for part in zip(*found, strict=True))
    torch.testing.assert_close(ahead, rest, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(scales, scale, rtol=1e-12, atol=0)
    torch.testing.assert_close(taken[:, 1:], (rest + scale * signal)[:, :-1], rtol=1e-9, atol=1e-9)


def test_residual_of_shaped_noise_is_white_and_of_unit_variance():
    """Noise through a formant, measured by its own mel: what is left is flat, where the signal was not."""
    audio = dataclasses.replace(AUDIO, n_fft=256, win_length=256, hop_length=64, n_mels=24)
    noise = torch.randn(1, 64 * 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wav = torch.zeros_like(noise)
    for t in range(wav.shape[1]):
        wav[:, t] = 0.02 * noise[:, t] + 1.5 * wav[:, t - 1] - 0.8 * wav[:, t - 2] if t > 1 else 0.02 * noise[:, t]
    gain = 1 / float(pre_emphasis(wav, 0.9).std())
    inner = pre_emphasis(wav, 0.9, gain)
    prediction = LinearPrediction(audio, 16, 0.9, gain).double()
    rest, scale = whiten(inner, prediction(LogMel(audio).double()(wav)), prediction.kernel)
    residual = inner * scale + rest

    def flatness(signal):
        power = torch.stft(signal[0], 256, window=torch.hann_window(256).double(), return_complex=True)
        power = power.abs().square().mean(1)[2:-2]
        return float(torch.exp(power.log().mean()) / power.mean())

    assert flatness(inner) < 0.6
    assert flatness(residual) > 0.9
    assert 0.85 < float(residual.std()) < 1.2


@pytest.mark.parametrize("kind", KINDS)
def test_density_moves_through_the_map(kind):
    """log p(x) = log p(e) + log |de / dx|, with autograd's Jacobian and the network's law of e."""
    teacher, mel = small_teacher(kind, linear_prediction=ORDER), random_mel(1, 3)
    wav = 0.2 * torch.randn(1, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cond = teacher.conditioning(mel)

    def residual(signal):
        inner = pre_emphasis(signal[None], 0.9, teacher.gain)
        rest, scale = whiten(inner, cond.whitening, teacher.prediction.kernel)
        return (inner * scale + rest)[0]

    e = residual(wav[0])
    inputs = torch.cat([torch.zeros(1), e[:-1]])[None, None]
    law = teacher.head(teacher.stack(inputs.double(), cond), torch.zeros(1, 48), 1.0)
    jacobian = torch.autograd.functional.jacobian(residual, wav[0])
    assert float(jacobian.triu(1).abs().max()) == 0.0
    expected = law.log_density(e[None]).sum() + torch.linalg.slogdet(jacobian).logabsdet
    found = teacher(wav, mel).log_density(wav).sum()
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-8)


def test_masses_sum_to_one():
    """On the grid of the waveform, although the law is that of the residual, moved."""
    teacher, mel = small_teacher("mol", bits=8, linear_prediction=ORDER), random_mel(1, 1)
    teacher.head.grid = type(teacher.head.grid)(8)
    law = teacher(0.1 * torch.randn(1, 16, dtype=torch.float64), mel)
    levels = law.grid.value(torch.arange(256), torch.float64)
    masses = law.log_prob(levels[:, None, None].expand(-1, 1, 16)).exp().sum(0)
    torch.testing.assert_close(masses, torch.ones_like(masses), rtol=0, atol=1e-9)


def test_draws_lie_in_the_support():
    """They are neither rounded nor clipped: of a loud mel some lie beyond full scale."""
    teacher, mel = small_teacher("mol", linear_prediction=ORDER), random_mel(1, 4) + 4
    law = teacher(torch.zeros(1, 64, dtype=torch.float64), mel)
    draws = law.sample((50,))
    assert float(draws.abs().max()) > 1
    assert bool(law.support.check(draws).all())


def test_gradient_reaches_the_waveform():
    """Distillation differentiates the density at the student's sample, whose past it filters."""
    teacher, mel = small_teacher("gaussian", linear_prediction=ORDER), random_mel(1, 2)
    wav = (0.1 * torch.randn(1, 32, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda signal: teacher(signal, mel).log_prob(signal).sum(), wav)


def test_gradient_reaches_the_mel():
    """By way of the filters too: the derivative is that of the density."""
    teacher, mel = small_teacher("gaussian", linear_prediction=ORDER), random_mel(1, 2).double().requires_grad_()
    wav = 0.1 * torch.randn(1, 32, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda frames: teacher(wav, frames).log_prob(wav).sum(), mel)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", [False, True])
@pytest.mark.parametrize("method", methods("naive"))
def test_every_method_equals_naive(kind, source, method):
    teacher, mel = small_teacher(kind, linear_prediction=ORDER, source=source), random_mel(2, 5)
    naive, other = (draw(teacher, mel, name, torch.Generator().manual_seed(7)) for name in ("naive", method))
    torch.testing.assert_close(other, naive, rtol=0, atol=1e-9)
    assert float(naive.std()) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_equal_naive(kind):
    """The residual by the operations that a CUDA graph records, here on a CPU."""
    teacher, mel = small_teacher(kind, linear_prediction=ORDER), random_mel(1, 5)
    uniforms = torch.rand(
        1, 80, teacher.noise_channels, generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )
    made = sample_by_residual(sample_in_blocks, teacher, mel, uniforms)
    naive = teacher.sample(mel, "naive", torch.Generator().manual_seed(7))
    torch.testing.assert_close(made, naive, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_reproduce_under_teacher_forcing(kind):
    teacher, mel = small_teacher(kind, linear_prediction=ORDER), random_mel(2, 4)
    wav = teacher.sample(mel, generator=torch.Generator().manual_seed(3))
    uniforms = torch.rand(
        2, wav.shape[1], teacher.noise_channels, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    torch.testing.assert_close(teacher(wav, mel).transform(uniforms), wav, rtol=0, atol=1e-9)


def test_receptive_field_counts_the_filter():
    plain, teacher = small_teacher(), small_teacher(linear_prediction=ORDER)
    assert teacher.receptive_field == plain.receptive_field + ORDER
    t = teacher.receptive_field + 3
    assert seen(teacher, t, frames=4) == list(range(3, t))


def test_autocast_does_not_reach_the_filter():
    prediction, mel = LinearPrediction(AUDIO, ORDER, 0.9, 2.0), random_mel(1, 6).float()
    wav = torch.randn(1, 96)
    plain = whiten(wav, prediction(mel), prediction.kernel)
    with torch.autocast("cpu", torch.bfloat16):
        cast = whiten(wav, prediction(mel), prediction.kernel)
    assert torch.equal(plain[0], cast[0])
    assert torch.equal(plain[1], cast[1])


def test_long_float32_samples_stay_bounded():
    """Mels whose resonances jump from frame to frame, and the recursion over 16,000 samples of them."""
    teacher = small_teacher("gaussian", linear_prediction=12).float()
    wav = teacher.sample(wild_mel(1000).float(), generator=torch.Generator().manual_seed(0))
    assert bool(wav.isfinite().all())
    window = wav.unfold(1, 1600, 1600).std(2)
    assert float(window.max() / window.min()) < 10


@pytest.mark.parametrize("setting", [{"linear_prediction": -1}, {"linear_prediction": 33}])
def test_orders_that_cannot_be(setting):
    with pytest.raises(UserError, match="linear_prediction"):
        TeacherConfig(audio=AUDIO, **setting)


def test_classes_have_none():
    config = small_teacher("mulaw").config
    with pytest.raises(UserError, match="linear_prediction"):
        Teacher(dataclasses.replace(config, linear_prediction=4))


def test_level_does_not_matter():
    """Quieter speech is the same residual: the filters carry the level, up to the white noise that they assume."""
    prediction, mel = LinearPrediction(AUDIO, ORDER, 0.9, 2.0).double(), random_mel(1, 4)
    loud, quiet = prediction(mel), prediction(mel - math.log(10))
    torch.testing.assert_close(quiet[:, 0], loud[:, 0] - math.log(10), rtol=0, atol=1e-3)
    torch.testing.assert_close(quiet[:, 1:], loud[:, 1:], rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_no_scale_lies_under_the_least(kind):
    """Whatever the network says, in silence as in speech; and the bound is reached."""
    teacher = small_teacher(kind, linear_prediction=ORDER)
    silence = torch.full((1, AUDIO.n_mels, 4), math.log(AUDIO.log_clamp), dtype=torch.float64)
    with torch.no_grad():
        teacher.stack.output.bias.sub_(100)
    law = teacher.requires_grad_(False)
    scales = [law(torch.zeros(1, 64).double(), mel).log_scale.min() for mel in (silence, random_mel(1, 4))]
    assert abs(float(scales[0]) - teacher.least_log_scale) < 1e-6
    assert float(scales[1]) > teacher.least_log_scale
    assert small_teacher(kind).least_log_scale == teacher.config.distribution.log_scale_floor
