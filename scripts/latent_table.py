"""What an ELBO of speech consists of: see `distill-latent-table --help`."""

import sys

from distill.latent.table import main

if __name__ == "__main__":
    sys.exit(main())
