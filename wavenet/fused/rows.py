"""What is done to a row of values between two products, by address (wavenet.fused.products).

Inside a loop over samples a slice of an array counts its references, and one that is assigned is copied twice.
"""

from __future__ import annotations

from wavenet.fused.activations import gated, leaky
from wavenet.fused.compilation import helper, whole_vectors
from wavenet.fused.products import put, size_of, take


@helper
def blend(zero, columns, share, bias, three, width, y):
    """y = bias + the three rows of `three`, weighted by `share`."""
    before, here, after = take(zero, share, 0), take(zero, share, 1), take(zero, share, 2)
    for j in range(columns):
        value = take(zero, bias, j) + before * take(zero, three, j)
        value += here * take(zero, three, width + j) + after * take(zero, three, 2 * width + j)
        put(zero, y, j, value)


@helper
def clear(zero, count, y):
    """y = 0."""
    for j in range(count):
        put(zero, y, j, zero)


@helper
def copy(zero, count, x, y):
    """y = x."""
    for j in range(count):
        put(zero, y, j, take(zero, x, j))


@helper
def gate(zero, half, y, content):
    """content = tanh x sigmoid of the two halves of y."""
    whole_vectors()
    other = y + half * size_of(zero)
    for j in range(half):
        put(zero, content, j, gated(take(zero, y, j), take(zero, other, j)))


@helper
def scale(zero, count, factor, bias, y):
    """y = factor y + bias."""
    for j in range(count):
        put(zero, y, j, take(zero, y, j) * factor + take(zero, bias, j))


@helper
def rectify(zero, count, slope, y):
    """y through the leaky rectifier."""
    for j in range(count):
        put(zero, y, j, leaky(take(zero, y, j), slope))
