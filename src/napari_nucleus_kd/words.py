"""What the window and the command line say alike."""

from __future__ import annotations

_UNJUDGED = "Too little is verified to judge the new version by numbers"
_LOOK = "Look at its results before you accept it."


def count(number: int, one: str, many: str | None = None) -> str:
    """Say a number of things.

    >>> count(1, "channel"), count(3, "channel"), count(0, "nucleus", "nuclei")
    ('1 channel', '3 channels', '0 nuclei')
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def gain(
    mean_pq: tuple[float, float] | None, difference: tuple[float, float, float] | None, tiles: int
) -> str:
    """Say how the new version compares with the old one.

    >>> print(gain((0.71, 0.78), (0.07, 0.03, 0.11), 6))
    PQ on 6 held-out tiles: 0.780, before 0.710.
    Better by +0.070 (95% interval +0.030 to +0.110).
    >>> print(gain((0.71, 0.78), None, 2))
    Too little is verified to judge the new version by numbers: 2 tiles are held out, 3 are needed.
    Of the tiles that are verified completely, one in five is held out: verify about 5 more (256 px each).
    Look at its results before you accept it.
    """
    if not tiles:  # why stands among the notes on the data
        return f"{_UNJUDGED}.\n{_LOOK}"
    if mean_pq is None or difference is None:
        from napari_nucleus_kd.evaluate import FEWEST_IMAGES
        from napari_nucleus_kd.project import JUDGED_EACH, TILE_PX

        held = f"{count(tiles, 'tile')} {'is' if tiles == 1 else 'are'} held out, {FEWEST_IMAGES} are needed"
        more = f"verify about {JUDGED_EACH * (FEWEST_IMAGES - tiles)} more ({TILE_PX} px each)"
        return (
            f"{_UNJUDGED}: {held}.\n"
            f"Of the tiles that are verified completely, one in five is held out: {more}.\n{_LOOK}"
        )
    said = f"PQ on {count(tiles, 'held-out tile')}: {mean_pq[1]:.3f}, before {mean_pq[0]:.3f}."
    mean, low, high = difference
    word = "Better" if low > 0 else "Worse" if high < 0 else "Not clearly different:"
    by = " by" if word in ("Better", "Worse") else ""
    return f"{said}\n{word}{by} {mean:+.3f} (95% interval {low:+.3f} to {high:+.3f})."
