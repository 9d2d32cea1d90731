"""`python -m profilemate`: the same as the `profilemate` script of an installed package."""

import sys

from profilemate.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
