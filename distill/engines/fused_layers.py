r"""Flows on a GPU with one launch a layer: taps, conditioning, gate, residual and skip in one Triton program.

Two precisions of what goes between the layers, of their gates and matrices. Exact: two float16 numbers each, a value
and what rounding it left out, 22 bits of mantissa; the samples of torch within 1e-4. Rounded: one float16 number, 2^-11
relative, an eighth of bfloat16's rounding. Values stay far from float16's limit of 65504. Sums and skips,
conditioning, what enters and leaves a flow, loc, log_scale and the affine step are float32 in both.

Estimates, not measurements, for four flows of 10, 10, 10 and 30 layers, 64 residual, 128 gate and 64 skip channels,
kernel 3, 5 s at 22.05 kHz (110,250 samples) on an H200 (4.8 TB/s of HBM, 50 MB of L2, 800 TFLOP/s in float16):

- arithmetic: 2 million multiply-adds a sample, 0.44 TFLOP in all: at a third of the tensor cores' rate 1.7 ms rounded,
  three times that, 5 ms, exact.
- memory: a layer reads a stream of 14 MB (exact: 28) once for each tap, the later times from L2, writes one, reads and
  writes skips of 28 MB: 84 MB (112), more than L2 holds, 18 (24) microseconds at HBM's full rate; tiles of 128 samples
  read 64 KB (128) of weights each from L2, 55 MB (110) a layer. At half of the full rates 40 microseconds (60) a layer,
  2.4 ms (3.6) for all 60.
- together, one not quite hidden behind the other: 3 ms rounded, 6 to 8 ms exact, 15 to 40 million samples/s, for
  batches too, whose streams leave L2. Memory bounds the rounded pass, arithmetic the exact one.
- launches: 68, at 5 microseconds each 0.3 ms: they bound signals below half a second, which is why passes are recorded
  (distill.engines.recorded).
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from distill.flows.autoregressive import IAF
from wavenet.config import require
from wavenet.errors import UserError
from wavenet.kernels.availability import expect_triton
from wavenet.upsample import Conditioning

_WIDEST = 128  # padded channels that a program's registers and shared memory hold
_LARGEST = 2**31  # numbers of one signal's stream: its offsets are 32-bit integers
_TILE, _WARPS = 128, 8  # samples of a program, and its warps: 64 channels then need no more registers than there are


class FusedFlows:
    """signal (B, T), Conditioning of the same T -> signal (B, T), through every IAF of `flows`, on a CUDA GPU.

    exact: whether streams and matrices have two parts, as above. tile: samples of one program, a power of two of at
    least 16. Raises UserError for weights that are not in float32 on a GPU (Triton's interpreter, TRITON_INTERPRET=1,
    runs on a CPU, for tests), without Triton or the C compiler that it wants, and for layers of more than 128 channels.
    """

    def __init__(self, flows: list[IAF], exact: bool = True, tile: int = _TILE) -> None:
        weight = flows[0].stack.input.weight
        if weight.dtype != torch.float32 or (weight.device.type != "cuda" and not _interpreted()):
            found = f"a model in {weight.dtype} on {weight.device.type}"
            raise UserError(f"engine: found {found}, expected one in torch.float32 on a CUDA GPU")
        expect_triton("engine", "another engine", launched=weight.device.type == "cuda")
        self._flows = [_FusedFlow(flow, 2 if exact else 1, tile) for flow in flows]

    @torch.no_grad()
    def __call__(self, signal: Tensor, cond: Conditioning) -> Tensor:
        """Flow after flow. Raises UserError for a signal too long for one pass (Student.chunk_length cuts it)."""
        with torch.cuda.device_of(signal):
            for flow in self._flows:
                signal = flow(signal.contiguous(), cond)
        return signal


class _FusedFlow:
    """One IAF, its weights as the programs read them."""

    def __init__(self, flow: IAF, parts: int, tile: int) -> None:
        # Imported where it is used: Triton is not installed everywhere.
        from wavenet.kernels.weights import padded, stack_sizes, stack_weights

        self.flow, self.parts, self.tile, self.sizes = flow, parts, tile, stack_sizes(flow.stack)
        for name in ("WIDTH", "HALF", "SKIP"):
            require(self.sizes[name] <= _WIDEST, "engine", f"{self.sizes[name]} channels", f"at most {_WIDEST}")
        found, where = stack_weights(flow.stack), flow.stack.input.weight.device
        found["gates"], found["hidden"] = found["gates"].mT, found["hidden"].mT  # by inputs
        self.kinds, skip = padded(2), self.sizes["SKIP"]
        assert flow.stack.output.bias is not None
        found["output"], found["output_bias"] = torch.zeros(skip, self.kinds), torch.zeros(self.kinds)
        channels, weight = flow.stack.config.skip_channels, flow.stack.output.weight.detach()[:, :, 0]
        found["output"][:channels, :2], found["output_bias"][:2] = weight.T, flow.stack.output.bias.detach()
        self.weights = {
            name: _in_parts(value, parts) if name in ("gates", "residual", "skip") else value.float()
            for name, value in found.items()
        }
        self.weights = {name: value.to(where).contiguous() for name, value in self.weights.items()}

    def __call__(self, signal: Tensor, cond: Conditioning) -> Tensor:
        from distill.engines.programs import enter, layer, leave
        from wavenet.kernels.weights import frames, padded

        sizes, weights, (batch, length) = self.sizes, self.weights, signal.shape
        require(length * sizes["WIDTH"] < _LARGEST, "signal", f"{length} samples", "fewer in one pass")
        projected, kernel = frames(self.flow.stack, cond)
        hop, layers = kernel.shape[0], sizes["LAYERS"]
        signals = signal if cond.signals is None or not self.flow.signals else cond.signals.contiguous()
        stream, after = (
            signal.new_empty(self.parts, batch, length, sizes["WIDTH"], dtype=torch.float16) for _ in range(2)
        )
        total, result = signal.new_empty(batch, length, sizes["SKIP"]), torch.empty_like(signal)
        grid = (-(-length // self.tile), batch)
        settings: dict[str, Any] = {"TILE": self.tile, "num_warps": _WARPS}
        window = {name: sizes[name] for name in ("INPUTS", "TAPS", "WINDOW", "WIDTH")}
        beginning = weights["input"], weights["input_bias"], length
        enter[grid](signal, signals, stream, *beginning, PARTS=self.parts, **window, **settings)
        shapes = {name: sizes[name] for name in ("TAPS", "LAYERS", "HALF", "WIDTH", "SKIP")}
        around = padded((self.tile + hop - 2) // hop + 3)
        for place, dilation in enumerate(self.flow.stack.config.dilations):
            own = [weights[name][place] for name in ("gates", "gates_bias", "residual", "residual_bias", "skip")]
            layer[grid](
                stream,
                after,
                total,
                *own,
                weights["skip_bias"],
                projected,
                kernel,
                length,
                projected.shape[1],
                place,
                dilation,
                HOP=hop,
                AROUND=around,
                PARTS=self.parts,
                FIRST=place == 0,
                LAST=place + 1 == layers,
                **shapes,
                **settings,
            )
            stream, after = after, stream
        head = [weights[name] for name in ("hidden", "hidden_bias", "output", "output_bias")]
        bounds = float(self.flow.low), float(self.flow.high), length
        leave[grid](total, signal, result, *head, *bounds, SKIP=sizes["SKIP"], KINDS=self.kinds, **settings)
        return result


def _in_parts(matrices: Tensor, parts: int) -> Tensor:
    """Matrices (L, ...) -> float16 (L, parts, ...), which add up to them."""
    first = matrices.half()
    require(bool(first.isfinite().all()), "engine", "weights beyond float16's range", "another engine")
    rest = (matrices - first).half()
    return torch.stack([first, rest][:parts], 1)


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
