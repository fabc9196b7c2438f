"""The family on single mel frames: see `distill-frame-family --help`."""

import sys

from distill.latent.frames import main

if __name__ == "__main__":
    sys.exit(main())
