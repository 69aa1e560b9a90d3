"""Write the CSV index of the training data: python benchmarks/make_index.py DATA_DIR index.csv.

DATA_DIR holds dsb2018/ (index.csv, images/, labels/) and consep/ (images/, labels/). The official
validation images and six CoNSeP images are "val" and never trained or tuned on; every tenth
training image is "tune". CoNSeP images that look like one slide are kept on one side.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

CONSEP_VAL = (3, 6, 9, 10, 19, 23)  # 6 and 10 look like one slide, so do 9 and 23
CONSEP_TUNE = (4, 17, 21)


def rows(data: Path) -> list[dict[str, str]]:
    """Return one row an image."""
    out, seen = [], 0
    with (data / "dsb2018/index.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            split = row["split"]
            if split == "train":
                seen += 1
                split = "tune" if seen % 10 == 0 else "train"
            name = f"{row['id']}.png"
            fluorescent = row["modality"] == "fluorescence"
            out.append(
                {
                    "image": str(data / "dsb2018/images" / name),
                    "labels": str(data / "dsb2018/labels" / name),
                    "modality": "fluorescence" if fluorescent else "H&E",
                    "source": f"dsb2018-{row['modality']}"
                    + ("-other" if fluorescent and row["subset"] == "other" else ""),
                    "split": split,
                }
            )
    for i in range(1, 28):
        split = "val" if i in CONSEP_VAL else "tune" if i in CONSEP_TUNE else "train"
        out.append(
            {
                "image": str(data / f"consep/images/train_{i}.jpg"),
                "labels": str(data / f"consep/labels/train_{i}.png"),
                "modality": "H&E",
                "source": "consep",
                "split": split,
            }
        )
    return out


def main() -> None:
    """Write the index with paths relative to it."""
    data, index = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    found = rows(data)
    index.parent.mkdir(parents=True, exist_ok=True)
    with index.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        for row in found:
            for key in ("image", "labels"):
                row[key] = os.path.relpath(row[key], index.parent)
            writer.writerow(row)
    print(f"{index}: {len(found)} images")


if __name__ == "__main__":
    main()
