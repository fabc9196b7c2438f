"""WaveNet: signal, distributions, network, teacher, sequential samplers."""

__version__ = "0.1.0"
