"""WaveVAE: a student that learns from an encoder of its own in place of a teacher."""
