"""A VAE's patches through a student to WAV: see `distill-imagine --help`."""

import sys

from distill.latent.imagine import main

if __name__ == "__main__":
    sys.exit(main())
