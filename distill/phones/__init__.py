"""A phone classifier over raw audio, trained on forced alignments: what the perceptual loss looks through."""
