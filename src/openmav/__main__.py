"""`python -m openmav` is `mav`."""

import sys

from openmav.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
