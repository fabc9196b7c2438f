"""A VAE of mel patches from recordings: see `distill-train-segments --help`."""

import sys

from distill.latent.train import main

if __name__ == "__main__":
    sys.exit(main())
