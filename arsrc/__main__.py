"""`python -m arsrc`, and the script `arsrc`: the command line."""

import sys


def main() -> int:
    """Run one command; return its exit code."""
    try:
        from arsrc import cli  # here, since that takes a while, and Ctrl-C may come meanwhile

        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
