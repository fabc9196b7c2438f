"""Flows by ONNX Runtime: written as a graph when the engine is made, which takes from seconds to minutes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim

from distill.export import onnx_file, require_packages, session_of
from distill.student import Student
from wavenet.upsample import Conditioning


class OnnxFlows:
    """signal (B, T), Conditioning of the same T -> signal (B, T), on a CPU in float32.

    Raises UserError without the packages of the extra [export].
    """

    def __init__(self, student: Student) -> None:
        require_packages()
        graph = _Graph(student)
        hop, channels = student.config.audio.hop_length, student.upsample.channels
        batch, frames = Dim("batch"), Dim("frames")
        example = {"signal": torch.zeros(2, 5 * hop), "frames": torch.zeros(2, channels, 7)}
        free = {"signal": {0: batch, 1: hop * frames}, "frames": {0: batch, 2: frames + 2}}
        if student.prior is not None:
            example["signals"] = torch.zeros(2, student.iafs[0].signals, 5 * hop)
            free["signals"] = {0: batch, 2: hop * frames}
        self.session = session_of(onnx_file(graph, example, free, "result"), threads=torch.get_num_threads())

    def __call__(self, signal: Tensor, cond: Conditioning) -> Tensor:
        """In one run."""
        values = {"signal": signal, "frames": cond.frames}
        if cond.signals is not None:
            values["signals"] = cond.signals
        found = {name: value.detach().float().contiguous().numpy() for name, value in values.items()}
        return torch.from_numpy(self.session.run(None, found)[0]).to(signal)


class _Graph(nn.Module):
    """The flows, with the parts of a Conditioning as arguments."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.flows, self.kernel = student.flows, student.upsample.kernel

    def forward(self, signal: Tensor, frames: Tensor, signals: Tensor | None = None) -> Tensor:
        """signal (B, T), frames (B, C, F + 2), signals (B, S, T) -> (B, T)."""
        cond = Conditioning(frames, self.kernel, signals)
        for flow in self.flows:
            signal, _ = flow(signal, cond)
        return signal
