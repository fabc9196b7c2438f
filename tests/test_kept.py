"""Steppers of the graph sampler and what was recorded of them: made once, made again for other weights, let go."""

import gc
import threading
import weakref

import pytest
import torch

from tests.conftest import AUDIO, random_mel, small_teacher
from wavenet.noise import uniforms
from wavenet.sampling.graph import sample_in_blocks
from wavenet.sampling.kept import Kept
from wavenet.sampling.residual import sample_by_residual

MADE: list = []


@pytest.fixture(autouse=True)
def _nothing_made():
    MADE.clear()


def record(stepper):
    """Stands for the capture of a graph."""
    MADE.append(weakref.ref(stepper))
    stepper.run()  # a recording's warm-up leaves traces, which the next signal must not hear
    return stepper.run


def sample(model, mel, temperature=1.0, seed=0, dtype=torch.float64):
    noise = uniforms([seed + n for n in range(len(mel))], mel.shape[2] * AUDIO.hop_length, model.noise_channels)
    return sample_in_blocks(model, mel, noise.to(dtype), temperature, block=8, prepare=record)


def check(model, mel, **settings):
    """Samples are those of a stepper of their own."""
    found, made = sample(model, mel, **settings), len(MADE)
    noise = uniforms(range(len(mel)), found.shape[1], model.noise_channels).double()
    fresh = sample_in_blocks(model, mel, noise, settings.get("temperature", 1.0), block=9)
    torch.testing.assert_close(found, fresh, rtol=0, atol=1e-9)
    assert len(MADE) == made
    return found


@pytest.mark.parametrize("kind", ["mol", "gaussian", "mulaw"])
def test_one_recording_serves_signals_of_all_lengths(kind):
    model = small_teacher(kind, source=kind == "mol")
    first = check(model, random_mel(2, 4))
    assert float((check(model, random_mel(2, 7, seed=1))[:, : first.shape[1]] - first).abs().max()) > 1e-3
    assert torch.equal(check(model, random_mel(2, 4)), first)
    assert len(MADE) == 1


def test_another_batch_temperature_or_precision_is_recorded_apart():
    model = small_teacher()
    for mel, temperature in ((random_mel(1, 2), 1.0), (random_mel(2, 2), 1.0), (random_mel(1, 2), 0.5)):
        check(model, mel, temperature=temperature)
    sample(model.float(), random_mel(1, 2).float(), dtype=torch.float32)
    assert len(MADE) == 4
    with torch.inference_mode():
        sample(model, random_mel(1, 2).float(), dtype=torch.float32)
    assert len(MADE) == 5  # its tensors may not be written to outside
    sample(model, random_mel(1, 2).float(), dtype=torch.float32)
    assert len(MADE) == 5


def in_place(weight):
    weight.mul_(1.5)


def by_data(weight):
    weight.data.mul_(1.5)


@pytest.mark.parametrize("change", [in_place, by_data])
def test_changed_weights_are_recorded_again(change):
    model, mel = small_teacher("gaussian"), random_mel(1, 3)
    before = check(model, mel)
    with torch.no_grad():
        change(model.stack.blocks[0].dilated.weight)
    assert float((check(model, mel) - before).abs().max()) > 1e-6
    assert len(MADE) == 2
    gc.collect()
    assert MADE[0]() is None


def test_other_conditioning_weights_need_no_recording_of_their_own():
    """They are no part of what is recorded, but for the projection, which is the stack's."""
    model, mel = small_teacher("gaussian"), random_mel(1, 3)
    before = check(model, mel)
    with torch.no_grad():
        next(model.upsample.parameters()).mul_(1.5)
    assert float((check(model, mel) - before).abs().max()) > 1e-6
    assert len(MADE) == 1


def test_a_residual_is_recorded_once():
    model, mel = small_teacher(linear_prediction=3), random_mel(1, 3)
    noise = uniforms([0], 3 * AUDIO.hop_length, model.noise_channels).double()
    first, second = (
        sample_by_residual(sample_in_blocks, model, mel, noise, 1.0, None, prepare=record) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert len(MADE) == 1


def test_the_recordings_used_last_are_kept_and_go_with_the_model():
    model, mel = small_teacher(), random_mel(1, 1)
    for temperature in (0.1, 0.2, 0.3, 0.4, 0.1, 0.5, 0.1):
        sample(model, mel, temperature)
    assert len(MADE) == 5
    gc.collect()
    assert [made() is None for made in MADE] == [False, True, False, False, False]  # 0.2 was used longest ago
    del model
    gc.collect()
    assert all(made() is None for made in MADE)


def test_what_was_in_use_when_an_error_came_is_not_used_again():
    kept: Kept[object] = Kept(4)
    module = torch.nn.Linear(2, 2)
    with kept.borrowed(module, "key", object) as first:
        pass
    with pytest.raises(RuntimeError), kept.borrowed(module, "key", object) as second:
        raise RuntimeError
    with kept.borrowed(module, "key", object) as third:
        assert first is second is not third


def test_two_at_a_time_have_one_each():
    kept: Kept[object] = Kept(4)
    module, inside, made = torch.nn.Linear(2, 2), threading.Barrier(2, timeout=20), []

    def use() -> None:
        with kept.borrowed(module, "key", lambda: made.append(object()) or made[-1]) as thing:
            inside.wait()
            seen.append(thing)

    seen: list[object] = []
    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == len(set(map(id, seen))) == 2
    with kept.borrowed(module, "key", object) as thing:
        assert thing in made
