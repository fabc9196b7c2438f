"""From the network's outputs at one time to the next sample: one function for each law, as wavenet.heads states it.

What of a draw does not depend on the network is done before for the whole signal (`noise` below): logistic and normal
deviates of the uniforms. Numbers are float64 here whatever the network's are: it costs nothing beside the network.
"""

from __future__ import annotations

import math

import numpy as np

from wavenet.fused.activations import exponential, soft_floor
from wavenet.fused.compilation import helper

MIXTURE, GAUSSIAN, CLASSES, INVERSE, FORCED = range(5)


@helper
def chosen(outputs, count, inverse_temperature, uniform, scratch):
    """Index drawn from softmax(outputs[:count] inverse_temperature) by inverse CDF; -1 where that is no number."""
    top = outputs[0]
    for i in range(1, count):
        top = max(top, outputs[i])
    for i in range(count):
        scratch[i] = exponential((outputs[i] - top) * inverse_temperature)
    total = 0.0
    for i in range(count):
        total += scratch[i]
    level, edge = uniform * total, 0.0
    for i in range(count - 1):
        edge += scratch[i]
        if level < edge:
            return i
    return count - 1 if total >= 0.0 else -1  # -1: not a number


@helper
def likeliest(outputs, count):
    """Index of the largest of outputs[:count], the first of equals."""
    best = 0
    for i in range(1, count):
        if outputs[i] > outputs[best]:
            best = i
    return best


@helper
def mixture(outputs, law, shift, choice, deviate, scratch):
    """A discretised mixture of logistics: the component, its logistic, the nearest level; step 0: no levels."""
    components = len(scratch) // 3
    k = chosen(outputs, components, scratch.dtype.type(1), choice, scratch)
    if k < 0:
        return math.nan
    loc = outputs[components + k] / law.gain + shift
    log_scale = soft_floor(outputs[2 * components + k] - law.log_gain, law.floor)
    value = loc + law.temperature * math.exp(log_scale) * deviate
    if law.step == 0.0:
        return value
    value = min(max(value, -1.0), 1.0)
    return np.rint((value + 1.0) / law.step) * law.step - 1.0


@helper
def gaussian(outputs, law, shift, deviate):
    """A normal deviate, moved and scaled."""
    log_scale = soft_floor(outputs[1] - law.log_gain, law.floor)
    return outputs[0] / law.gain + shift + law.temperature * math.exp(log_scale) * deviate


@helper
def classes(outputs, law, choice, scratch):
    """A class of a mu-law scale: the sample it stands for."""
    count = len(law.levels)
    if law.temperature == 0.0:
        return law.levels[likeliest(outputs, count)]
    inverse = scratch.dtype.type(1.0 / law.temperature)
    k = chosen(outputs, count, inverse, choice, scratch)
    return law.levels[k] if k >= 0 else math.nan


@helper
def bounded(raw, law):
    """The log scale of a flow, softly inside its range."""
    return soft_floor(-soft_floor(-raw, -law.high), law.low)
