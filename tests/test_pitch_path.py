"""The best path is the one that trying every path finds."""

import itertools

import pytest
import torch

from wavenet.pitch.path import best_path


def score(path, scores, changes):
    total = sum(float(scores[i, state]) for i, state in enumerate(path))
    return total + sum(float(changes[i, a, b]) for i, (a, b) in enumerate(itertools.pairwise(path)))


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("states", [1, 2, 3])
def test_no_path_is_better(frames, states):
    generator = torch.Generator().manual_seed(10 * frames + states)
    scores = torch.randn(4, frames, states, generator=generator)
    changes = torch.randn(4, frames - 1, states, states, generator=generator)
    found = best_path(scores, changes)
    assert found.shape == (4, frames)
    for row in range(4):
        every = itertools.product(range(states), repeat=frames)
        best = max(every, key=lambda path: score(path, scores[row], changes[row]))
        assert tuple(found[row].tolist()) == best


def test_a_long_path_is_the_sequential_ones():
    """Against Viterbi with a walk back, over 5000 frames: nothing of the differences is lost in large sums."""
    generator = torch.Generator().manual_seed(0)
    scores = -10 * torch.rand(1, 5000, 3, generator=generator)
    changes = -3 * torch.rand(1, 4999, 3, 3, generator=generator)
    best, back = scores[0, 0].double(), []
    for i in range(1, 5000):
        value, origin = (best[:, None] + changes[0, i - 1].double()).max(0)
        back.append(origin)
        best = value + scores[0, i].double()
    path = [int(best.argmax())]
    for origin in reversed(back):
        path.append(int(origin[path[-1]]))
    assert best_path(scores, changes)[0].tolist() == path[::-1]
