"""The health monitor of a distillation: judges each validation, says what persists, and ends a run that collapsed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distill.diagnoses import DIAGNOSES, FATAL, GRADIENT, Case, Diagnosis, HealthConfig, examine
from wavenet.monitor import Verdict


class Health:
    """Fed with every training step's scalars and every validation's; see `wavenet.monitor.Monitor`.

    scale_floor: the teacher's log scale floor. Before config.after steps nothing is judged; a diagnosis counts once
    config.persist validations running show it, and is said once, until a validation is free of it.
    """

    def __init__(self, config: HealthConfig, scale_floor: float) -> None:
        self.config, self.scale_floor = config, scale_floor
        self.every = config.every
        self._running = dict.fromkeys(DIAGNOSES, 0)
        self._best_kl = math.inf
        self._gradients: dict[str, list[float]] = {}

    def observe(self, scalars: Mapping[str, float]) -> None:
        """Keep the gradient norms of a step: sum and number of each, until the next validation."""
        for name, value in scalars.items():
            if name.startswith(GRADIENT) and math.isfinite(value):
                total, number = self._gradients.get(name, [0.0, 0])
                self._gradients[name] = [total + value, number + 1]

    def judge(self, step: int, scalars: Mapping[str, float]) -> Verdict:
        """Scalars of a validation -> how many validations running show each diagnosis, what is new, why to stop."""
        gradients = {name: total / number for name, (total, number) in self._gradients.items()}
        found = examine(self.config, Case({**scalars, **gradients}, self.scale_floor, self._best_kl))
        self._gradients = {}
        divergence = scalars.get("kl/kl", math.nan)
        if math.isfinite(divergence):
            self._best_kl = min(self._best_kl, max(divergence, 0.0))
        if step < self.config.after:
            found = []
        names = {diagnosis.name for diagnosis in found}
        self._running = {name: count + 1 if name in names else 0 for name, count in self._running.items()}
        counts = {f"health/diagnosis/{name.replace(' ', '_')}": float(n) for name, n in self._running.items()}
        new = [diagnosis for diagnosis in found if self._running[diagnosis.name] == self.config.persist]
        stop = self._stop(found)
        return Verdict(counts, [str(diagnosis) for diagnosis in new if str(diagnosis) != stop], stop)

    def state(self) -> dict[str, Any]:
        """Counts, sums and the best KL, for a checkpoint."""
        return {"running": dict(self._running), "best_kl": self._best_kl, "gradients": dict(self._gradients)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`; diagnoses that it does not know begin at 0."""
        self._running = {name: int(state["running"].get(name, 0)) for name in DIAGNOSES}
        self._best_kl, self._gradients = float(state["best_kl"]), dict(state["gradients"])

    def _stop(self, found: list[Diagnosis]) -> str | None:
        """The first persistent diagnosis that ends the run."""
        for diagnosis in found:
            grave = self.config.on_collapse == "stop" or diagnosis.name in FATAL
            if grave and self._running[diagnosis.name] >= self.config.persist:
                return str(diagnosis)
        return None
