"""What the table marks as best: only what the clips can tell apart, and only numbers that can be compared."""

import numpy as np
import pytest

from distill.ranking import nearness, rank

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


def test_where_the_recording_is_the_aim_more_is_no_better():
    tone = "voiced_autocorrelation"
    found = metrics(
        recording={tone: [0.86, 0.80, 0.90]},
        buzz={tone: [0.95, 0.90, 0.99]},
        right={tone: [0.87, 0.80, 0.89]},
        whisper={tone: [0.40, 0.30, 0.41]},
    )
    assert rank(found, tone, "recording") == ("right", set(), set())
    distance = nearness(found["systems"], tone, "recording")
    assert distance["buzz"]["mean"][tone] == pytest.approx((0.09 + 0.10 + 0.09) / 3)
    assert distance["recording"]["mean"][tone] == 0
    assert found["systems"]["buzz"]["clips"]["0"][tone] == 0.95, "the table shows the value itself"


def test_missing_values_and_unknown_columns():
    found = metrics(
        a={MEL: [0.1, 0.2], "noise_floor": [-60.0, -61.0]}, b={MEL: [None, 0.2], "noise_floor": [-80.0, -81.0]}
    )
    assert rank(found, MEL, "recording").best is None
    assert rank(found, "noise_floor", "recording").best is None
    assert rank(found, "unknown", "recording") == (None, set(), set())
