"""Draw the sample images of napari-nucleus-kd with their exact labels.

    python sample_data/draw.py                  # all, into src/napari_nucleus_kd/samples
    python sample_data/draw.py he --out /tmp    # one, somewhere else

The same seed gives the same pixels. Needs numpy, scipy, scikit-image and tifffile.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from drawing import fluorescence, histology, lamin, multiplex
from drawing.files import save

if TYPE_CHECKING:
    from collections.abc import Callable

    from drawing.files import Drawing

SHIPPED = Path(__file__).resolve().parent.parent / "src" / "napari_nucleus_kd" / "samples"
ARTISTS: dict[str, Callable[..., Drawing]] = {
    "fluorescence": fluorescence.draw,
    "he": histology.draw,
    "lamin": lamin.draw,
    "multiplex": multiplex.draw,
}


def main(arguments: list[str] | None = None) -> None:
    """Draw the samples that the command line names."""
    parser = argparse.ArgumentParser(description="Draw the sample images with their exact labels.")
    parser.add_argument("names", nargs="*", help=f"what to draw: {', '.join(ARTISTS)}; all if none is named")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder to write into")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in ARTISTS:
            parser.error(f"there is no sample {name!r}; choose from {', '.join(ARTISTS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names or ARTISTS:
        drawing = ARTISTS[name]()
        for path in save(drawing, options.out):
            print(f"{path}  {path.stat().st_size / 1e6:.2f} MB, {drawing.labels.max()} nuclei")


if __name__ == "__main__":
    main()
