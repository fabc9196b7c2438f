"""What a healthy demo shows: figures against stated expectations."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

SOURCE_FILTER, TEXTBOOK, KL_ONLY, FLOW_0 = "source-filter", "textbook", "textbook-kl-only", "flow 0 untrained"
GRIFFIN_LIM, RECORDING = "griffin-lim", "recording"
_BESIDE = {"flow 0": FLOW_0, "Griffin-Lim": GRIFFIN_LIM, "textbook": TEXTBOOK}


class Gate(NamedTuple):
    """A figure, what was expected of it, and whether it was reached: the demo fails without."""

    name: str
    found: float
    expected: str
    passed: bool

    def as_dict(self) -> dict[str, Any]:
        """Everything, with the line to print."""
        reached = "reached" if self.passed else "NOT reached"
        line = f"{reached}: {self.name}: {self.found:.3f} (expected {self.expected})"
        return {**self._asdict(), "line": line}


def check_gates(history: list[dict[str, float]], metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The demo's gates from the textbook student's training log and the evaluation: Gate.as_dict of each."""
    divergence = [line["kl/kl"] for line in history if "kl/kl" in line]
    mean = {name: system["mean"] for name, system in metrics["systems"].items()}

    def of(system: str, metric: str) -> float:
        value = mean[system][metric]  # None where nothing of the recordings is voiced
        return 0.0 if value is None else value

    def beside(metric: str) -> str:
        return ", ".join(f"{short} {of(system, metric):.3f}" for short, system in _BESIDE.items())

    mel, pitch, tone = "mel_distance", "f0_within_3_percent", "voiced_autocorrelation"
    half, alone, natural = divergence[0] / 2, of(KL_ONLY, mel), of(RECORDING, tone)
    ours, theirs = of(SOURCE_FILTER, mel), of(TEXTBOOK, mel)
    right, hummed, hoarse = of(SOURCE_FILTER, pitch), of(SOURCE_FILTER, tone), of(TEXTBOOK, pitch)
    return [
        gate.as_dict()
        for gate in (
            Gate("source-filter: mel distance", ours, f"below 0.30 nats; {beside(mel)}", ours < 0.30),
            Gate("source-filter: F0 within 3%", right, f"at least 0.70; {beside(pitch)}", right >= 0.70),
            Gate(
                "source-filter: voiced autocorrelation",
                hummed,
                f"within 0.1 of the recording's {natural:.3f}; {beside(tone)}",
                math.isclose(hummed, natural, abs_tol=0.1),
            ),
            Gate("textbook: KL falls by half", divergence[-1], f"below {half:.2f} nats/sample", divergence[-1] < half),
            Gate("textbook: mel distance", theirs, "below 0.45 nats", theirs < 0.45),
            Gate("textbook beats KL alone", theirs, f"below {alone:.3f} nats, the KL-only student's", theirs < alone),
            Gate("textbook: F0 within 3%", hoarse, "at least 0.30, below that it whispers", hoarse >= 0.30),
        )
    ]
