"""A GPU gives what a CPU gives: training, sampling, densities, commands. Where there is none, one is pretended.

The pretended one is strict about where tensors are and computes on the CPU, so that all agrees to the last bit, but
for methods that sum in another order on a GPU.
"""

import contextlib
import functools
import json

import numpy as np
import pytest
import soundfile
import torch

import distill.benchmark
import distill.evaluate
import distill.synthesize
from distill.engines.table import build
from distill.projection import project
from distill.speed.gpu_ceilings import gpu_ceilings
from tests.conftest import AUDIO, random_mel, random_wav, small_student, small_teacher
from tests.miniatures import NAMES, Miniatures, short_corpus
from tests.pretend_gpu import Pretended, pretended_gpu
from wavenet import checkpoint

REAL = torch.cuda.is_available()
gpu = contextlib.nullcontext if REAL else pretended_gpu


def near(found, expected, real=1e-6, pretended=0.0):
    """The same to the last bit, but for what is summed in another order, or within `real` on a real GPU."""
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=real if REAL else pretended)


@pytest.mark.skipif(REAL, reason="nothing is pretended beside a GPU")
def test_the_device_is_strict():
    with pretended_gpu():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert (there + torch.tensor(1.0)).device == there[here > 0].device == torch.device("cuda", 0)
        for mixed in (
            lambda: there + here,
            lambda: torch.nn.functional.linear(there, torch.ones(2, 3)),
            lambda: torch.cat([there, here]),
            lambda: there.index_put([there > 0], here),
            lambda: there.numpy(),
            lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
            lambda: torch.nn.Linear(3, 1).to("cuda")(here),
        ):
            with pytest.raises(RuntimeError):
                mixed()
        assert there.cpu().device == there.to(here).device == torch.device("cpu")
        assert type(there.cpu()) is torch.Tensor
        assert isinstance(torch.tensor([1.0], device=there.device), Pretended)
    assert not torch.cuda.is_available()


@pytest.mark.skipif(REAL, reason="nothing is pretended beside a GPU")
def test_gradients_go_to_where_the_weights_are():
    with pretended_gpu():
        weight = torch.ones(3, 2, device="cuda").requires_grad_()
        left, _ = weight.unbind(1)
        (2 * left).cpu().sum().backward()
        assert isinstance(weight.grad, Pretended)
        assert weight.grad.tolist() == [[2, 0]] * 3


@pytest.mark.skipif(REAL, reason="nothing is pretended beside a GPU")
def test_a_graph_does_nothing_until_it_is_replayed_and_waits_for_nothing():
    with pretended_gpu():
        given, state = torch.zeros(2, device="cuda"), torch.zeros(1, device="cuda")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            doubled = given * 2
            state += 1
            total = doubled[:1] + state
            total += 0
            counted = torch.zeros(2, dtype=torch.int64, device="cuda")
        assert state.tolist() == [0]
        assert total.isnan().all()
        assert counted.tolist() == [torch.iinfo(torch.int64).min] * 2
        given.fill_(3)
        for times in (1, 2):
            graph.replay()
            assert (doubled.tolist(), state.tolist(), total.tolist()) == ([6, 6], [times], [6 + times])
        for waits in (
            lambda: float(given.sum()),
            given.cpu,
            given.tolist,
            lambda: torch.ones(2).cuda(),
            lambda: torch.ones(2).copy_(given),
            lambda: given.copy_(torch.ones(2)),
            lambda: given[given > 0],
            lambda: given[torch.tensor([1])],
            lambda: given.masked_select(given > 0),
            lambda: given.unique(),
            lambda: torch.equal(given, given),
            torch.cuda.synchronize,
            torch.cuda.current_stream().synchronize,
        ):
            refused = pytest.raises(RuntimeError, match="not permitted when stream is capturing")
            with refused, torch.cuda.graph(torch.cuda.CUDAGraph()):
                waits()


@pytest.mark.parametrize("kind", ["mol", "gaussian", "mulaw"])
@pytest.mark.parametrize("method", ["naive", "cached", "fused", "graph"])
def test_a_teacher_samples_and_states_densities(kind, method, monkeypatch):
    monkeypatch.setattr("wavenet.sampling.graph._kernels", lambda: False)  # Triton's: tests/test_graph.py
    extras = {} if kind == "mulaw" else {"source": True, "linear_prediction": 4}
    teacher, mel = small_teacher(kind, **extras), random_mel()
    with torch.no_grad():
        wav = teacher.sample(mel, "cached" if method == "graph" else method, seed=0)
        expected = teacher(wav, mel).log_prob(wav)
        with gpu():
            teacher.to("cuda")
            found = teacher.sample(mel.cuda(), method, seed=0)
            assert found.is_cuda
            other_order = 1e-12 if method == "graph" else 0
            near(found, wav, pretended=other_order)
            near(teacher(found, mel.cuda()).log_prob(found), expected, real=1e-4, pretended=other_order)


@pytest.mark.parametrize("prior", ["none", "source_filter"])
@pytest.mark.parametrize("speakers", [0, 2])
def test_a_student_samples_and_states_densities(prior, speakers):
    student, mel, wav = small_student(prior=prior, speakers=speakers), random_mel(), random_wav()
    who = torch.tensor([0, 1]) if speakers else None
    made = student.sample(mel, speaker=who, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = student.log_prob(wav, mel, speaker=who)
        with gpu():
            student.to("cuda")
            who = None if who is None else who.cuda()
            found = student.sample(mel.cuda(), speaker=who, generator=torch.Generator().manual_seed(0))
            assert found.is_cuda
            near(found, made)
            near(student.log_prob(wav.cuda(), mel.cuda(), speaker=who), expected, real=1e-4)


@pytest.mark.parametrize("prior", ["none", "source_filter"])
def test_a_recorded_student_says_the_same(prior):
    """At several lengths, of which two share a graph."""
    student = small_student(prior=prior).float()
    with gpu():
        engine = build("cudagraph", student.to("cuda"))
        for frames in (20, 9, 19, 20):
            mel = random_mel(2, frames, seed=frames).float().cuda()
            own, found = (
                student.sample(mel, generator=torch.Generator().manual_seed(0), engine=engine)
                for engine in (None, engine)
            )
            near(found, own.cpu(), real=1e-5 * float(own.abs().max()))


def test_a_projection_is_the_same():
    wav, mel = random_wav().float(), random_mel().float()
    with gpu():
        near(project(wav.cuda(), mel.cuda(), AUDIO, 3), project(wav, mel, AUDIO, 3), real=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Miniatures on the device."""
    corpus = short_corpus(tmp_path_factory.mktemp("corpus"))
    folders = [tmp_path_factory.mktemp(device) for device in ("cpu", "cuda")]
    return [Miniatures(folder, corpus, device) for folder, device in zip(folders, ("cpu", "cuda"), strict=True)]


@pytest.mark.parametrize("part", ["real", "imag", "abs", "angle"])
def test_conjugates(part):
    """Views that only say that a sign is to be turned, forwards and backwards."""
    generator = torch.Generator().manual_seed(0)
    spectra = [torch.randn(2, 3, 5, generator=generator, dtype=torch.complex64) for _ in range(2)]
    found = {}
    for device, context in (("cpu", contextlib.nullcontext()), ("cuda", gpu())):
        with context:
            one, other = (spectrum.clone().to(device).requires_grad_() for spectrum in spectra)
            product = one.transpose(1, 2) * other.transpose(1, 2).conj()
            getattr(torch, part)(product).square().sum().backward()
            found[device] = [x.cpu() for x in (product.detach(), product.imag.detach(), one.grad, other.grad)]
    for there, here in zip(found["cuda"], found["cpu"], strict=True):
        near(there, here, real=1e-4)


def same_weights(trained, name):
    """Three steps of Adam on a real GPU may go another way where a gradient is nearly 0."""
    here, there = trained
    expected = checkpoint.load(here(name)).model_state
    with gpu():
        found = checkpoint.load(there(name)).model_state
        assert found.keys() == expected.keys()
        for key, value in found.items():
            near(value, expected[key], real=1e-2)


def test_a_pair_trains(trained):
    same_weights(trained, "demo_student.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_miniature_trains(trained, name):
    same_weights(trained, name)


@pytest.mark.parametrize("name", ["student", "student_gaussian", "teacher"])
def test_commands_speak(name, tmp_path):
    generator = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", 0.1 * generator.standard_normal(4000), 22050)
    call = [name, str(tmp_path / "a.wav"), "--seed", "1", *(["--engine", "torch"] if "student" in name else [])]
    assert distill.synthesize.main([*call, "--out", str(tmp_path / "cpu")]) == 0
    with gpu():
        assert distill.synthesize.main([*call, "--out", str(tmp_path / "cuda"), "--device", "cuda"]) == 0
    wavs = [torch.from_numpy(soundfile.read(tmp_path / device / "a.wav")[0]) for device in ("cuda", "cpu")]
    near(*wavs, real=1e-3)
    assert float(wavs[1].std()) > 1e-3


@pytest.mark.slow
def test_commands_measure(tmp_path):
    call = ["teacher", "student", "--data", "bundled", "--clips", "1", "--systems", "models", "--device", "cuda"]
    with gpu():
        assert distill.evaluate.main([*call, "--out", str(tmp_path / "evaluation")]) == 0
    assert (tmp_path / "evaluation" / "report.html").is_file()


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path, monkeypatch):
    """Its ceilings are of small matrices; its figures are not looked at where the GPU is pretended."""
    small = functools.partial(gpu_ceilings, side=64, copied=1 << 10)
    monkeypatch.setattr("distill.speed.ceilings.gpu_ceilings", small)
    call = ["--nets", "student", "--methods", "parallel,cudagraph", "--batches", "2", "--lengths", "0.1"]
    call += ["--device", "cuda", "--seconds", "0.1", "--budget", "2", "--repeats", "1"]
    with gpu():
        assert distill.benchmark.main([*call, "--out", str(tmp_path / "benchmark.json")]) == 0
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert {row["method"] for row in found["rows"]} == {"parallel", "cudagraph"}
    assert found["machine"]["gpu"]
