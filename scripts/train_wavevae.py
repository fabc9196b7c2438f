"""A WaveVAE from recordings, without a teacher: see `distill-train-wavevae --help`."""

import sys

from distill.wavevae.train import main

if __name__ == "__main__":
    sys.exit(main())
