"""Numbers as people read them, for texts."""


def counted(number: int, noun: str) -> str:
    """Return a number of things: "1 file", "1,200 batches"."""
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith(('ch', 'ss')) else 's'}"


def in_bytes(number: float) -> str:
    """Return a number of bytes: "784 bytes", "1.6 MB"."""
    for power, unit in ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB")):
        if number >= 999.5 * 1000 ** (power - 1):
            return f"{number / 1000**power:.3g} {unit}"
    return counted(round(number), "byte")


def in_seconds(number: float) -> str:
    """Return a time: "12 us", "3.4 ms", "56 s"."""
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if number * factor < 999.5:
            return f"{number * factor:.3g} {unit}"
    return f"{number:,.3g} s" if number < 999.5 else f"{number:,.0f} s"
