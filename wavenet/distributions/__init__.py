"""Output distributions of a sample given its past."""
