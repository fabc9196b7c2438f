"""Small matrix products with their sums held in vector registers: the inner loop of one-sample-at-a-time networks.

A matrix of n inputs and m outputs is kept in panels of 32 columns, and perhaps a last one of 16, each [input][column],
side by side: the panel that begins at column c begins at value c n. `panels` packs it, `matmul` multiplies by it. A
panel stays in the nearest cache while all rows pass over it, and is one straight line through memory for a single row.

Compiled functions take addresses [bytes] and strides [values] as plain integers, and a zero that says the precision:
an array handed on is a dozen numbers and a reference count, which for products this small is most of the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from wavenet.fused.compilation import helper

WIDTHS = (32, 16)  # columns of a panel
PAD = WIDTHS[-1]  # every number of columns is rounded up to a multiple of this


def padded(columns: int) -> int:
    """The next multiple of PAD."""
    return -(-columns // PAD) * PAD


def panels(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """matrix (inputs, outputs) -> its panels, flat; outputs are padded with zeros to a multiple of PAD."""
    inputs, outputs = matrix.shape
    matrix = np.pad(matrix, [(0, 0), (0, padded(outputs) - outputs)])
    parts, column = [], 0
    for width in WIDTHS:
        while matrix.shape[1] - column >= width:
            parts.append(matrix[:, column : column + width].reshape(-1))
            column += width
    return np.concatenate(parts) if inputs else np.empty(0, matrix.dtype)


def _lanes(context: Any, element: ir.Type) -> tuple[int, int]:
    """Values in a vector register, and how many sums fit into the register file beside their operands."""
    features = context.codegen().magic_tuple()[2].split(",")
    size = 4 if isinstance(element, ir.FloatType) else 8
    if "+avx512f" in features:
        return 64 // size, 16
    return (32 if "+avx" in features else 16) // size, 8


def _address(typing: Any, array: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = cgutils.create_struct_proxy(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.intp(array), codegen


def _size_of(typing: Any, zero: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.IntType(64)(signature.args[0].bitwidth // 8)

    return types.intp(zero), codegen


def _take(typing: Any, zero: Any, at: Any, index: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_place(context, builder, signature, arguments))

    return zero(zero, at, index), codegen


def _put(typing: Any, zero: Any, at: Any, index: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[3], _place(context, builder, signature, arguments))
        return context.get_dummy_value()

    return types.void(zero, at, index, zero), codegen


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """A pointer to value arguments[2] after the address arguments[1]."""
    base = builder.inttoptr(arguments[1], context.get_value_type(signature.args[0]).as_pointer())
    return builder.gep(base, [arguments[2]])


address: Any = intrinsic(_address)  # of an array's data; whoever takes it keeps the array alive
size_of: Any = intrinsic(_size_of)  # bytes of a value
take: Any = intrinsic(_take)  # (zero, address, index): the value there
put: Any = intrinsic(_put)  # (zero, address, index, value)


class Panel:
    """Emits y[r] += sum_k x[r, k] w[k] for some rows r and the columns of a few vectors, all sums in registers.

    A subclass may keep weights in another form: `weights`, of which a sum begins with `begin` and ends with `end`.
    """

    def __init__(self, builder: Any, element: ir.Type, lanes: int, rows: int, vectors: int, splits: int) -> None:
        self.builder, self.lanes, self.rows = builder, lanes, rows
        self.vectors, self.splits = range(vectors), splits
        self.vector, self.index, self.lane = ir.VectorType(element, lanes), ir.IntType(64), ir.IntType(32)
        self.align = 4 if isinstance(element, ir.FloatType) else 8

    def emit(self, w: Any, w_row: Any, x: Any, x_row: Any, y: Any, y_row: Any, n: Any) -> None:
        """The whole product of n inputs. Pointers, and distances between rows."""
        builder, index = self.builder, self.index
        cells = [(row, part) for row in range(self.rows) for part in self.vectors]
        place = {
            (row, part): builder.add(builder.mul(y_row, index(row)), index(part * self.lanes)) for row, part in cells
        }
        # Several sums of a cell, for one row: no product then waits for the one before.
        sums = {
            (cell, split): cgutils.alloca_once(builder, self.vector) for cell in cells for split in range(self.splits)
        }
        for (cell, split), total in sums.items():
            builder.store(self.begin(y, place[cell]) if split == 0 else ir.Constant(self.vector, None), total)
        whole = builder.sdiv(n, index(self.splits))
        with cgutils.for_range(builder, whole) as loop:
            first = builder.mul(loop.index, index(self.splits))
            for split in range(self.splits):
                self._add(sums, split, builder.add(first, index(split)), w, w_row, x, x_row)
        if self.splits > 1:
            with cgutils.for_range(builder, n, builder.mul(whole, index(self.splits))) as loop:
                self._add(sums, 0, loop.index, w, w_row, x, x_row)
        for cell in cells:
            total = builder.load(sums[cell, 0])
            for split in range(1, self.splits):
                total = builder.fadd(total, builder.load(sums[cell, split]))
            total = self.end(total, builder.gep(w, [builder.mul(n, w_row)]), cell[1], y, place[cell])
            builder.store(total, self.vector_at(y, place[cell]), align=self.align)

    def begin(self, y: Any, place: Any) -> Any:
        """What a sum begins with."""
        return self.load(y, place)

    def weights(self, w: Any, start: Any) -> list[Any]:
        """The vectors of one input, whose weights begin at `start`."""
        return [self.load(w, self.builder.add(start, self.index(part * self.lanes))) for part in self.vectors]

    def end(self, total: Any, behind: Any, part: int, y: Any, place: Any) -> Any:
        """What is stored of a sum of vector `part`; behind: a pointer behind the weights."""
        return total

    def _add(self, sums: Any, split: int, k: Any, w: Any, w_row: Any, x: Any, x_row: Any) -> None:
        builder, index = self.builder, self.index
        weights = self.weights(w, builder.mul(k, w_row))
        for row in range(self.rows):
            at = builder.add(builder.mul(x_row, index(row)), k)
            value = self._broadcast(builder.load(builder.gep(x, [at])))
            for part in self.vectors:
                total = sums[(row, part), split]
                builder.store(self.multiply_add(value, weights[part], builder.load(total)), total)

    def multiply_add(self, value: Any, weights: Any, total: Any) -> Any:
        """value weights + total, in one instruction where there is one."""
        product = self.builder.fmul(value, weights, flags=("contract",))
        return self.builder.fadd(total, product, flags=("contract",))

    def vector_at(self, base: Any, offset: Any) -> Any:
        """A pointer to the vector at an offset of values."""
        return self.builder.bitcast(self.builder.gep(base, [offset]), self.vector.as_pointer())

    def load(self, base: Any, offset: Any) -> Any:
        """That vector."""
        return self.builder.load(self.vector_at(base, offset), align=self.align)

    def _broadcast(self, value: Any) -> Any:
        undefined = self.vector(ir.Undefined)
        first = self.builder.insert_element(undefined, value, self.lane(0))
        return self.builder.shuffle_vector(first, undefined, ir.VectorType(self.lane, self.lanes)(None))


def _multiplier(rows: int, width: int) -> Any:
    """The intrinsic y[r, :width] += sum_k x[r, k] w[k, :width], r < rows, k < n.

    Written in LLVM's own language because its vectoriser never keeps an array of sums in registers across the loop
    over k. The vectors are as wide as the processor that numba compiles for allows, which its cache of compiled code is
    keyed by.
    """

    def multiply(typing: Any, zero: Any, w: Any, x: Any, x_row: Any, y: Any, y_row: Any, n: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            element = context.get_value_type(signature.args[0])
            lanes, registers = _lanes(context, element)
            lanes = min(lanes, width)
            together = min(rows, registers // 2)  # so many that two vectors of each fit: an input loaded feeds both
            vectors = max(1, min(registers // together, width // lanes))
            weights, inputs, outputs = (builder.inttoptr(arguments[at], element.as_pointer()) for at in (1, 2, 4))
            x_row, y_row, n = (arguments[at] for at in (3, 5, 6))
            splits = max(1, registers // 2 // (together * vectors))
            panel, w_row = Panel(builder, element, lanes, together, vectors, splits), ir.IntType(64)(width)
            for row in range(0, rows, together):
                first = ir.IntType(64)(row)
                x, y = (
                    builder.gep(base, [builder.mul(step, first)]) for base, step in ((inputs, x_row), (outputs, y_row))
                )
                for column in range(0, width, vectors * lanes):
                    shift = [ir.IntType(64)(column)]
                    panel.emit(builder.gep(weights, shift), w_row, x, x_row, builder.gep(y, shift), y_row, n)
            return context.get_dummy_value()

        return types.void(zero, *[types.intp] * 6), codegen

    return intrinsic(multiply)


def _by_rows(width: int) -> Any:
    """y[:rows, :width] += x[:rows] w, by eight, four, two rows and one, of which `_multiplier` may split the first."""
    eight, four, two, one = (_multiplier(rows, width) for rows in (8, 4, 2, 1))

    @helper
    def multiply(zero, rows, w, x, x_row, y, y_row, n):
        size = size_of(zero)
        if rows == 1:
            one(zero, w, x, x_row, y, y_row, n)
            return
        row, x_row_size, y_row_size = 0, x_row * size, y_row * size
        while row + 8 <= rows:
            eight(zero, w, x + row * x_row_size, x_row, y + row * y_row_size, y_row, n)
            row += 8
        if row + 4 <= rows:
            four(zero, w, x + row * x_row_size, x_row, y + row * y_row_size, y_row, n)
            row += 4
        if row + 2 <= rows:
            two(zero, w, x + row * x_row_size, x_row, y + row * y_row_size, y_row, n)
            row += 2
        if row < rows:
            one(zero, w, x + row * x_row_size, x_row, y + row * y_row_size, y_row, n)

    return multiply


_32, _16 = (_by_rows(width) for width in WIDTHS)


@helper
def matmul(zero, rows, w, n, columns, x, x_row, y, y_row):
    """y[:rows, :columns] += x[:rows, :n] w, with w in panels, and columns a multiple of PAD."""
    at, size = 0, size_of(zero)
    while at + 32 <= columns:
        _32(zero, rows, w + at * n * size, x, x_row, y + at * size, y_row, n)
        at += 32
    if at < columns:
        _16(zero, rows, w + at * n * size, x, x_row, y + at * size, y_row, n)
