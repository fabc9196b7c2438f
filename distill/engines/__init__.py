"""Engines: how a student's flows are computed when it speaks. All give the same samples."""
