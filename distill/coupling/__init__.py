"""RealNVP as a vocoder: affine couplings over squeezed audio, one pass each way."""
