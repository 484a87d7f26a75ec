"""The command line of scripts that run races."""

import argparse
import pathlib
import tempfile

_RESULTS = pathlib.Path(__file__).parent / "results"


def parse(description: str | None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    parser.add_argument("--only", metavar="CASE", nargs="+", default=[], help="cases or races of the list")
    parser.add_argument("--quick", action="store_true", help="small files and one short round: a smoke test")
    parser.add_argument("--cores", type=int, default=2, help="cores that all contestants share (default: 2)")
    parser.add_argument("--results", type=pathlib.Path, help="folder to write to")
    folder = pathlib.Path(tempfile.gettempdir()) / "arsrc-benchmarks"
    parser.add_argument("--data", type=pathlib.Path, default=folder, help="folder for the files that are made")
    options = parser.parse_args()
    if options.results is None and not options.quick and not options.only:
        options.results = _RESULTS
    return options
