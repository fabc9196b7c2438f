"""Normalising flows: forward is noise to signal and returns (signal, log_det)."""
