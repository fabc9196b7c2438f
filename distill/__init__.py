"""Probability density distillation: flows, student, objectives, and everything that needs teacher and student both."""

from wavenet import __version__ as __version__
