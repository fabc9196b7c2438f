"""Density estimation on vectors: autoregressive flows where every figure can be checked."""
