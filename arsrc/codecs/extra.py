"""What is said of a package that a codec needs and that is not installed."""

from arsrc.errors import ArsrcValueError


def not_installed(where: str, what: str) -> ArsrcValueError:
    """Return the error of a codec without a package of the extra `formats`."""
    return ArsrcValueError(where, what, "Run: pip install 'arsrc[formats]'.")
