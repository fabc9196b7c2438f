"""How fast models make audio, and train: what is measured, beside what, and how it is told."""
