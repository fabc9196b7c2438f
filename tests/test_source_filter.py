"""Flow 0: an exact inverse-autoregressive step whose levels are those of the mel, for any layout of the analysis."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distill.config import SourceFilterConfig
from distill.flows.base import log_prob
from distill.flows.source_filter import SourceFilter
from tests.conftest import AUDIO, UPSAMPLE, random_mel, randomise
from wavenet import source
from wavenet.config import AudioConfig
from wavenet.data import load_clip, open_corpus
from wavenet.distributions.logistic import Logistic
from wavenet.emphasis import de_emphasis, pre_emphasis
from wavenet.envelope import MelEnvelope
from wavenet.errors import UserError
from wavenet.excitation import fade, harmonic_count, harmonics, phase, voicing
from wavenet.features import LogMel
from wavenet.pitch.contour import Pitch, filled
from wavenet.pitch.tracker import track
from wavenet.source import limited, minimum_phase
from wavenet.upsample import Upsample

EIGHT = AudioConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=40, f_max=4000.0)
HIFI = AudioConfig()
WIDE = AudioConfig(sample_rate=16000, n_fft=1024, win_length=800, hop_length=200, n_mels=60, f_min=20.0, f_max=7600.0)
LAYOUTS = pytest.mark.parametrize("audio", [EIGHT, HIFI, WIDE], ids=["8 kHz", "22.05 kHz", "window below n_fft"])


def small_flow() -> SourceFilter:
    torch.manual_seed(0)
    flow = SourceFilter(SourceFilterConfig(taps=20, channels=4, correction_points=5), AUDIO, 0.9, 2.0, 1.8)
    return randomise(flow.double(), scale=0.3)


def small_conditioning(flow: SourceFilter, mel: torch.Tensor, corrected: bool = True):
    frames = mel.shape[2]
    torch.manual_seed(3)
    upsample = Upsample(UPSAMPLE, AUDIO.n_mels, AUDIO.hop_length).double()
    f0 = torch.linspace(700.0, 900.0, frames).double().expand(len(mel), -1)
    voiced = (torch.arange(frames) % 3 != 2).double().expand(len(mel), -1)
    pitch = Pitch(f0, voiced)
    cycles = phase(pitch, AUDIO, torch.full((len(mel),), 0.3).double())
    with torch.no_grad():
        return flow.condition(upsample(mel), mel, upsample.standardised(mel), pitch, cycles, corrected)


def noise(batch: int, frames: int) -> torch.Tensor:
    return torch.randn(batch, frames * AUDIO.hop_length, generator=torch.Generator().manual_seed(8)).double()


def test_jacobian_is_triangular_with_the_scale_on_its_diagonal():
    flow, mel = small_flow(), random_mel(1, 4)
    cond, z = small_conditioning(flow, mel), noise(1, 4)[0]
    jacobian = torch.autograd.functional.jacobian(lambda u: flow(u[None], cond)[0][0], z)
    assert (jacobian.triu(1) == 0).all()
    torch.testing.assert_close(jacobian.diagonal(), flow.affine(z[None], cond)[1][0].exp(), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(
        flow(z[None], cond)[1][0], torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-11, atol=1e-11
    )
    assert float(jacobian.tril(-1).abs().max()) > 1e-3


def test_loc_sees_the_taps_before_t_and_the_scale_sees_no_noise():
    flow, mel = small_flow(), random_mel(1, 4)
    cond, z, t = small_conditioning(flow, mel), noise(1, 4), 40
    loc = torch.autograd.functional.jacobian(lambda u: flow.affine(u, cond)[0][0], z)[:, 0]
    assert (loc.triu(0) == 0).all()
    assert loc[t].nonzero().flatten().tolist() == list(range(t - flow.receptive_field, t))
    scale = torch.autograd.functional.jacobian(lambda u: flow.affine(u, cond)[1][0], z)[:, 0]
    assert (scale == 0).all()


def test_inverse_is_the_inverse_and_the_density_is_the_change_of_variables():
    flow, mel = small_flow(), random_mel(2, 4)
    cond, z = small_conditioning(flow, mel), noise(2, 4)
    x, log_det = flow(z, cond)
    back, inverse_log_det = flow.inverse(x, cond)
    torch.testing.assert_close(back, z, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=1e-10, atol=1e-10)
    base = Logistic(torch.zeros(()).double(), torch.zeros(()).double())
    direct = (-z - 2 * torch.nn.functional.softplus(-z)).sum(1) - log_det
    torch.testing.assert_close(log_prob(flow, base, x, cond), direct, rtol=1e-8, atol=1e-7)


def test_a_window_of_frames_makes_the_samples_of_the_whole():
    flow, mel = small_flow(), random_mel(1, 9)
    cond, z = small_conditioning(flow, mel), noise(1, 9)
    whole, hop = flow(z, cond)[0], AUDIO.hop_length
    part, _ = flow(z[:, 2 * hop : 8 * hop], cond.window(2, 8))
    lead = flow.receptive_field
    torch.testing.assert_close(part[:, lead:], whole[:, 2 * hop + lead : 8 * hop], rtol=1e-12, atol=1e-12)


def test_minimum_phase_recovers_a_filter_that_has_it():
    """1 / ((1 - 0.9 / z)(1 + 0.5 / z)) and a zero at 0.7: causal, stable, invertible, hence the response itself."""
    size = 2048
    turn = torch.exp(-2j * torch.pi * torch.arange(size // 2 + 1).double() / size)
    response = 3 * (1 - 0.7 * turn) / ((1 - 0.9 * turn) * (1 + 0.5 * turn))
    expected = torch.fft.irfft(response, size)[:64]
    torch.testing.assert_close(minimum_phase(response.abs().log(), 64), expected, rtol=1e-9, atol=1e-9)


def sharp_spectra(count: int) -> torch.Tensor:
    """log |H| (count, 129) over 60 dB, rough from bin to bin: no filter of so many taps has them."""
    walk = torch.cumsum(torch.randn(count, 129, generator=torch.Generator().manual_seed(0)).double(), 1)
    return walk * (60 / 8.69) / (walk.amax(1, keepdim=True) - walk.amin(1, keepdim=True))


@pytest.mark.parametrize("taps", [2, 16, 32, 128, 200])
def test_every_filter_has_its_zeros_inside_the_circle(taps):
    spectra = limited(sharp_spectra(40), taps)
    for response in minimum_phase(spectra, taps, longer=1).numpy():
        assert np.abs(np.roots(response)).max() < 1.0
    longer = minimum_phase(spectra, 256, longer=1)
    kept = min(taps, 128)
    # That is all there is of it: nothing was cut off.
    assert float((longer[:, kept:].abs().amax(1) / longer.abs().amax(1)).max()) < 1e-3


def test_the_limit_keeps_a_smooth_spectrum_and_the_mean_power():
    smooth = torch.cos(torch.linspace(0, 2 * torch.pi, 129).double())[None]
    torch.testing.assert_close(limited(smooth, 64)[:, ::4], smooth, rtol=0, atol=0.02)
    sharp = sharp_spectra(5)
    power = [torch.fft.irfft(torch.exp(2 * spectrum))[:, 0] for spectrum in (sharp, limited(sharp, 32))]
    torch.testing.assert_close(power[1], power[0], rtol=1e-10, atol=0)


def test_the_inverse_does_not_grow(monkeypatch):
    """A change of one sample is forgotten 500 samples later; with responses that are cut off it has grown instead."""

    def growth() -> float:
        flow, mel = small_flow(), 3 * random_mel(1, 60)
        cond, z = small_conditioning(flow, mel), noise(1, 60)
        with torch.no_grad():
            signal, _ = flow(z, cond)
        moved = signal.clone()
        moved[:, 20] += 1e-3  # far above the rounding of a signal of up to 1e7
        apart = (flow.inverse(moved, cond)[0] - flow.inverse(signal, cond)[0]).abs()[0]
        return float(apart[500:].max() / apart[:100].max())

    assert growth() < 1e-6
    monkeypatch.setattr(source, "limited", lambda log_magnitude, taps: log_magnitude)
    assert growth() > 1


def test_phase_integrates_f0_and_goes_on_across_frames():
    pitch = Pitch(torch.tensor([[100.0, 180.0, 90.0, 90.0]]).double(), torch.ones(1, 4).double())
    centres = (np.arange(4) + 0.5) * EIGHT.hop_length
    f0 = np.interp(np.arange(4 * EIGHT.hop_length) + 0.5, centres, pitch.f0[0].numpy())
    expected = (0.25 + np.cumsum(f0) / EIGHT.sample_rate) % 1
    found = phase(pitch, EIGHT, torch.tensor([0.25]).double())[0].numpy()
    assert np.abs(np.exp(2j * np.pi * found) - np.exp(2j * np.pi * expected)).max() < 1e-9


def test_harmonics_are_their_sum_and_reach_half_the_rate_for_a_creaky_voice():
    pitch = Pitch(torch.full((1, 3), 40.0).double(), torch.ones(1, 3).double())
    count = harmonic_count(pitch, EIGHT)
    assert count == 100
    amplitude = torch.complex(*torch.randn(2, 1, count, 3, generator=torch.Generator().manual_seed(0)).double())
    cycles = phase(pitch, EIGHT)
    found = harmonics(cycles, amplitude, EIGHT)[0, EIGHT.hop_length : 2 * EIGHT.hop_length]
    place = (torch.arange(EIGHT.hop_length) + 0.5) / EIGHT.hop_length - 0.5
    left, own, right = (-place).clamp(min=0), 1 - place.abs(), place.clamp(min=0)
    for i in (0, 17, 63):
        turn = torch.exp(2j * torch.pi * cycles[0, EIGHT.hop_length + i] * torch.arange(1, count + 1))
        mixed = left[i] * amplitude[0, :, 0] + own[i] * amplitude[0, :, 1] + right[i] * amplitude[0, :, 2]
        assert float(found[i]) == pytest.approx(float((mixed * turn).real.sum()), abs=1e-9)
    assert float(fade(torch.tensor(4000.0), EIGHT)) == 0.0
    assert float(fade(torch.tensor(3000.0), EIGHT)) == 1.0
    assert harmonic_count(Pitch(pitch.f0, 0 * pitch.voiced), EIGHT) == 1


@LAYOUTS
@pytest.mark.parametrize("f0", [110.0, 200.0, 310.0])
def test_amplitudes_of_lines_are_read_off_the_mel(audio, f0):
    """Lines of known amplitude, analysed: what the envelope says of them is within 1 dB on average, 2 dB each."""
    frames = 60
    pitch = Pitch(torch.full((1, frames), f0), torch.ones(1, frames))
    order = torch.arange(1, harmonic_count(pitch, audio) + 1)
    true = 0.1 / order * fade(order * f0, audio)
    shape = torch.polar(true, 0.4 * order**2 * torch.ones(len(order)))[None, :, None].expand(-1, -1, frames)
    wav = harmonics(phase(pitch, audio), shape, audio)
    envelope = MelEnvelope(audio)
    integral = envelope.integral(LogMel(audio)(wav))
    read = envelope.smoothed(integral, (order * f0).expand(1, frames, -1), pitch.f0) * f0
    error = 20 * torch.log10(read[0, 30] / (envelope.spacing * envelope.line) / true)
    inside = (order * f0 > audio.f_min + f0 / 2) & (order * f0 < 0.9 * audio.f_max)
    assert abs(float(error[inside].mean())) < 0.5
    assert float(error[inside].abs().max()) < 2.0


@LAYOUTS
def test_the_level_of_noise_is_read_off_the_mel(audio):
    wav = 0.05 * torch.randn(1, 400 * audio.hop_length, generator=torch.Generator().manual_seed(0))
    envelope = MelEnvelope(audio)
    density = envelope.magnitude(LogMel(audio)(wav))[0, 2:-2] / envelope.noise
    inside = (torch.arange(envelope.bins) * envelope.spacing > audio.f_min + 60) & (
        torch.arange(envelope.bins) * envelope.spacing < 0.9 * audio.f_max
    )
    assert 20 * math.log10(float(density[:, inside].mean()) / 0.05) == pytest.approx(0.0, abs=0.2)


@pytest.mark.parametrize("audio", [EIGHT, HIFI], ids=["8 kHz", "22.05 kHz"])
def test_level_on_recordings_is_within_1_db_voiced_and_unvoiced(audio):
    """Four held-out clips of speech through the signal model alone, with their own F0: nothing here is trained."""
    torch.manual_seed(0)
    ours, theirs = {True: 0.0, False: 0.0}, {True: 0.0, False: 0.0}
    flow = SourceFilter(SourceFilterConfig(), audio, 0.9, 30.0, math.pi / math.sqrt(3))
    upsample = Upsample(UPSAMPLE, audio.n_mels, audio.hop_length)
    for clip in open_corpus("bundled", audio).test[:4]:
        wav = load_clip(clip, audio)[None]
        mel, pitch = LogMel(audio)(wav), filled(track(wav[0], audio.sample_rate, audio.hop_length))
        uniform = torch.rand(wav.shape).clamp(1e-6, 1 - 1e-6)
        with torch.no_grad():
            cond = flow.condition(upsample(mel), mel, mel, pitch, phase(pitch, audio), corrected=False)
            made = de_emphasis(flow(torch.logit(uniform), cond)[0], 0.9, 30.0)
        level = voicing(pitch, audio)
        for voiced, mask in ((True, level == 1), (False, level == 0)):
            ours[voiced] += float(made[mask].square().sum())
            theirs[voiced] += float(wav[mask].square().sum())
    for voiced in (True, False):
        assert abs(10 * math.log10(ours[voiced] / theirs[voiced])) < 1.0


def test_emphasis_of_the_models_inner_signal_is_the_filters():
    """The level that Source gives is that of pre-emphasised audio: a line through both ways has one amplitude."""
    from wavenet.source import Source

    audio, f0 = HIFI, 1000.0
    source = Source(audio, 0.9, 5.0)
    time = torch.arange(audio.sample_rate).double()
    line = torch.cos(2 * torch.pi * f0 * time / audio.sample_rate)
    expected = float(pre_emphasis(line[None], 0.9, 5.0)[0, 100:].square().mean().mul(2).sqrt())
    place = f0 / source.envelope.spacing
    low = source.emphasis[int(place)].exp() * (1 - place % 1) + source.emphasis[int(place) + 1].exp() * (place % 1)
    assert float(low) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("shape", ["ramp", "step", "one band", "floor", "loud"])
@pytest.mark.parametrize("audio", [EIGHT, HIFI], ids=["8 kHz", "22.05 kHz"])
def test_any_mel_gives_a_finite_signal_and_a_positive_scale(audio, shape):
    """In float32, at ranges that no recording has: the logarithm of h_0 is c_0, and no level is lost in a sum."""
    mel = torch.full((1, audio.n_mels, 6), -11.5)
    mel[:] = {
        "ramp": torch.linspace(0, -20, audio.n_mels)[:, None],
        "step": torch.where(torch.arange(audio.n_mels) < audio.n_mels // 2, 2.0, -23.0)[:, None],
        "one band": torch.where(torch.arange(audio.n_mels) == 3, 2.0, -11.5)[:, None],
        "floor": torch.tensor(-11.5),
        "loud": torch.tensor(5.0),
    }[shape]
    torch.manual_seed(0)
    flow = SourceFilter(SourceFilterConfig(taps=64), audio, 0.9, 30.0, 1.8)
    pitch = Pitch(torch.full((1, 6), 150.0), torch.tensor([[0.0, 1, 1, 1, 0, 0]]))
    upsample = Upsample(UPSAMPLE, audio.n_mels, audio.hop_length)
    with torch.no_grad():
        cond = flow.condition(upsample(mel), mel, mel.clamp(-3, 3), pitch, phase(pitch, audio))
        loc, log_scale = flow.affine(torch.randn(1, 6 * audio.hop_length), cond)
    assert torch.isfinite(loc).all()
    assert torch.isfinite(log_scale).all()


def test_the_first_tap_is_the_mean_log_magnitude_for_any_spectrum():
    log_magnitude = 6 * torch.randn(50, 65, generator=torch.Generator().manual_seed(0)).double()
    mean = (log_magnitude[:, :1] + log_magnitude[:, -1:] + 2 * log_magnitude[:, 1:-1].sum(1, keepdim=True)) / 128
    torch.testing.assert_close(minimum_phase(log_magnitude, 8)[:, :1].log(), mean, rtol=1e-10, atol=1e-10)


def test_more_taps_than_the_analysis_has_are_refused():
    with pytest.raises(UserError, match=r"source_filter.taps: found 300, expected at most audio.n_fft = 256"):
        SourceFilter(SourceFilterConfig(taps=300), EIGHT, 0.9, 30.0, 1.8)


def swelling(audio: AudioConfig, frames: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Harmonics of 200 Hz (1, T) that swell and fade from frame to frame, their amplitude (frames,) and steady ones."""
    pitch = Pitch(torch.full((1, frames), 200.0), torch.ones(1, frames))
    order = torch.arange(1, harmonic_count(pitch, audio) + 1)
    shape = torch.polar(0.1 / order * fade(order * 200.0, audio), 0.4 * order**2 * torch.ones(len(order)))
    walk = torch.cumsum(torch.randn(frames, generator=torch.Generator().manual_seed(4)), 0)
    amplitude = torch.exp(0.3 * (walk - F.avg_pool1d(walk[None], 21, 1, 10, count_include_pad=False)[0]))
    steady = shape[None, :, None].expand(-1, -1, frames)
    cycles = phase(pitch, audio)
    return harmonics(cycles, steady * amplitude, audio), amplitude, harmonics(cycles, steady, audio)


@LAYOUTS
def test_a_frame_states_the_blurred_power_of_lines(audio):
    """The weights of the window's mean, against the analysis of lines whose amplitude is linear between frames."""
    wav, amplitude, steady = swelling(audio, 200)
    log_mel, blur = LogMel(audio), MelEnvelope(audio).blur
    found = (log_mel(wav) - log_mel(steady))[0, :, 5:-5].median(0).values
    reach = len(blur) // 2
    stated = F.pad(amplitude[None].square(), (reach, reach), mode="replicate")[0].unfold(0, len(blur), 1) @ blur
    assert float(blur.sum()) == pytest.approx(1.0, abs=1e-6)
    plain, blurred = found - amplitude[5:-5].log(), found - 0.5 * stated[5:-5].log()
    assert float(plain.abs().mean()) > 0.07
    assert float(blurred.abs().mean()) < 0.5 * float(plain.abs().mean())


@LAYOUTS
def test_sharpening_finds_the_lines_own_amplitudes(audio):
    """Each update brings the amplitude that the mel states nearer to the true one."""
    wav, amplitude, steady = swelling(audio, 200)
    log_mel, envelope, voiced = LogMel(audio), MelEnvelope(audio), torch.ones(1, 200)
    errors = []
    for updates in range(5):
        stated = (envelope.sharpened(log_mel(wav), voiced, updates) - log_mel(steady))[0, :, 5:-5].median(0).values
        errors.append(float((stated - amplitude[5:-5].log()).abs().mean()))
    assert sorted(errors, reverse=True) == errors
    assert errors[2] < 0.8 * errors[0]


def test_an_update_is_that_of_richardson_and_lucy():
    """a H (p / H a) with H the matrix of the blur, its own transpose but for the ends: every band's sum is kept."""
    envelope = MelEnvelope(EIGHT).double()
    mel = torch.randn(2, EIGHT.n_mels, 30, generator=torch.Generator().manual_seed(0)).double()
    mel[..., :12] = mel[..., -12:] = -11.5  # silence around
    reach, wide = len(envelope.blur) // 2, torch.arange(30)
    matrix = torch.zeros(30, 30).double()
    for offset, weight in enumerate(envelope.blur):
        matrix.index_put_((wide, (wide + offset - reach).clamp(0, 29)), weight.double(), accumulate=True)
    power = torch.exp(2 * mel)
    expected = power * ((power / (power @ matrix.T)) @ matrix.T)
    found = torch.exp(2 * envelope.sharpened(mel, torch.ones(2, 30), 1))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)
    torch.testing.assert_close(found.sum(2), power.sum(2), rtol=1e-4, atol=0)


def test_what_is_unvoiced_is_not_sharpened_and_no_update_changes_nothing():
    envelope, mel = MelEnvelope(EIGHT), torch.randn(1, EIGHT.n_mels, 20, generator=torch.Generator().manual_seed(0))
    voiced = (torch.arange(20) % 5 < 2).float()[None]
    sharp = envelope.sharpened(mel, voiced, 2)
    assert torch.equal(sharp[..., voiced[0] == 0], mel[..., voiced[0] == 0])
    assert float((sharp - mel)[..., voiced[0] == 1].abs().max()) > 0.1
    assert torch.equal(envelope.sharpened(mel, voiced, 0), mel)


@pytest.mark.parametrize("sharpening", [0, 1, 2])
def test_the_context_of_a_frame_is_what_decides_it(sharpening):
    """A mel that differs beyond `context` frames leaves a frame's conditioning as it is, and within it does not."""
    torch.manual_seed(0)
    config = SourceFilterConfig(taps=20, channels=4, correction_points=5, sharpening=sharpening)
    flow = randomise(SourceFilter(config, AUDIO, 0.9, 2.0, 1.8).double(), scale=0.3)
    frames, hop = 40, AUDIO.hop_length
    mel, upsample = random_mel(1, frames), Upsample(UPSAMPLE, AUDIO.n_mels, AUDIO.hop_length).double()
    pitch = Pitch(torch.full((1, frames), 800.0).double(), torch.ones(1, frames).double())

    def made(values):
        with torch.no_grad():
            return flow.condition(upsample(values), values, upsample.standardised(values), pitch, phase(pitch, AUDIO))

    for away in (flow.context, flow.context + 1):
        changed = mel.clone()
        changed[:, :, 20 + away] += 1.0
        same = [
            torch.equal(a, b)
            for a, b in zip(
                (made(mel).window(20, 21).filters, made(mel).voice[:, 20 * hop : 21 * hop]),
                (made(changed).window(20, 21).filters, made(changed).voice[:, 20 * hop : 21 * hop]),
                strict=True,
            )
        ]
        assert all(same) == (away > flow.context)


def test_a_negative_number_of_updates_is_refused():
    with pytest.raises(UserError, match=r"source_filter.sharpening: found -1, expected 0 \(none\) or a number of"):
        SourceFilterConfig(sharpening=-1)
