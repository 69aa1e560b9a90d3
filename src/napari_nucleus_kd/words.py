"""Numbers of things in words."""

from __future__ import annotations


def count(number: int, one: str, many: str | None = None) -> str:
    """Say a number of things.

    >>> count(1, "channel"), count(3, "channel"), count(0, "nucleus", "nuclei")
    ('1 channel', '3 channels', '0 nuclei')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"
