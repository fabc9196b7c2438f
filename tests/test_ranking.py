"""What the table marks as best: only what the clips can tell apart, and only numbers that can be compared."""

import numpy as np
import pytest

from distill.ranking import rank

MEL, PITCH = "mel_distance", "f0_rmse_cents"


def metrics(**systems):
    """Systems by name, each metric -> its values over the clips."""
    return {
        "systems": {
            name: {
                "clips": {
                    str(i): {m: v[i] for m, v in values.items()} for i in range(len(next(iter(values.values()))))
                },
                "mean": {m: None if None in v else float(np.mean(v)) for m, v in values.items()},
            }
            for name, values in systems.items()
        }
    }


def test_best_excludes_the_recording_and_names_what_is_not_told_apart():
    found = metrics(
        recording={MEL: [0.0, 0.0, 0.0]},
        good={MEL: [0.10, 0.50, 0.30]},
        close={MEL: [0.09, 0.53, 0.31]},
        # Its mean lies within the spread over clips, yet it is worse by the same in each: paired, that is plain.
        worse={MEL: [0.15, 0.551, 0.35]},
    )
    assert rank(found, MEL, "recording") == ("good", {"close"}, set())


def test_higher_is_better_where_it_is():
    found = metrics(a={"f0_within_3_percent": [0.9, 0.91, 0.9]}, b={"f0_within_3_percent": [0.5, 0.52, 0.5]})
    assert rank(found, "f0_within_3_percent", "recording").best == "a"


@pytest.mark.parametrize("clips", [1, 2, 3])
def test_nothing_is_marked_where_nothing_is_told_apart(clips):
    found = metrics(a={MEL: [0.1, 0.5, 0.3][:clips]}, b={MEL: [0.2, 0.3, 0.4][:clips]})
    assert rank(found, MEL, "recording") == (None, set(), set())


def test_pitch_error_of_a_few_accidental_frames_does_not_win():
    def system(error, share):
        return {PITCH: error, "f0_within_3_percent": share}

    found = metrics(
        student=system([40.0, 41.0, 42.0], [0.8, 0.8, 0.8]),
        other=system([60.0, 62.0, 61.0], [0.7, 0.7, 0.7]),
        whisper=system([5.0, 6.0, 5.0], [0.02, 0.01, 0.02]),
    )
    assert rank(found, PITCH, "recording") == ("student", set(), {"whisper"})


def test_missing_values_and_columns_without_a_better_end():
    found = metrics(
        a={MEL: [0.1, 0.2], "noise_floor": [-60.0, -61.0]}, b={MEL: [None, 0.2], "noise_floor": [-80.0, -81.0]}
    )
    assert rank(found, MEL, "recording").best is None
    assert rank(found, "noise_floor", "recording").best is None
    assert rank(found, "unknown", "recording") == (None, set(), set())
