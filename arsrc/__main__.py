"""`python -m arsrc`: the command line."""

import sys

from arsrc.cli import main

if __name__ == "__main__":
    sys.exit(main())
