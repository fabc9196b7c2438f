"""Engines that hold copies of a student's weights, made again when the weights have changed."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from distill.student import Engine, Student
from wavenet.upsample import Conditioning


class Current:
    """The engine that `make` makes of a student, and makes again before the next signal when the weights have changed.

    A change is another tensor in a parameter's place (`load_state_dict(assign=True)`, `to`), other memory, or an
    operation in place (`load_state_dict`, an optimiser's step): looked up for every signal, in well under a
    millisecond. What is written through `parameter.data` in place leaves no trace, and is not seen.
    """

    def __init__(self, student: Student, make: Callable[[Student], Engine]) -> None:
        self._student, self._make = student, make
        modules = [*student.flows.modules(), *student.upsample.modules()]
        self._places = [(module._parameters, name) for module in modules for name in module._parameters]
        self._marks, self.engine = self._now(), make(student)

    def __call__(self, signal: Tensor, cond: Conditioning) -> Tensor:
        """signal (B, T), Conditioning of the same T -> signal (B, T), by the weights as they are now."""
        marks = self._now()
        if marks != self._marks:
            self._marks, self.engine = marks, self._make(self._student)
        return self.engine(signal, cond)

    def _now(self) -> list[tuple[int, int]]:
        found = (parameters[name] for parameters, name in self._places)
        return [_mark(parameter) for parameter in found if parameter is not None]


def _mark(parameter: nn.Parameter) -> tuple[int, int]:
    """Where the numbers are, and how often they were written; tensors of inference mode do not count that."""
    return parameter.data_ptr(), 0 if parameter.is_inference() else parameter._version
