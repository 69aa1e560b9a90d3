"""A little data set: four grey pictures and one in colour."""

import csv

import numpy as np
import pytest
import torch
from skimage.io import imsave

from napari_nucleus_kd.networks.student import StudentConfig, build_student


def picture(seed):
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:96, :112]
    labels = np.zeros((96, 112), np.uint16)
    for i, (y, x) in enumerate(rng.uniform(12, 84, (6, 2)), 1):
        labels[np.hypot(yy - y, xx - x) < 9] = i
    noise = rng.normal(20, 5, labels.shape)
    return np.clip(noise + 150 * (labels > 0), 0, 255).astype(np.uint8), labels


@pytest.fixture
def more_held_out(index):
    """Add three other grey images to those that are held out."""
    with index.open("a", newline="") as file:
        for i in (5, 6, 7):
            for name, pixels in zip((f"{i}.png", f"{i}_labels.png"), picture(i), strict=True):
                imsave(index.parent / name, pixels, check_contrast=False)
            csv.writer(file).writerow([f"{i}.png", f"{i}_labels.png", "fluorescence", "s0", "val"])


@pytest.fixture
def index(tmp_path):
    """Four grey images and one colour one."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = []
    for i, split in enumerate(["train", "train", "train", "tune", "val"]):
        image, labels = picture(i)
        if i == 1:
            image = np.stack([255 - image, 255 - image // 2, 255 - image // 3], -1)
        imsave(folder / f"{i}.png", image, check_contrast=False)
        imsave(folder / f"{i}_labels.png", labels, check_contrast=False)
        rows.append(
            [f"{i}.png", f"{i}_labels.png", "H&E" if i == 1 else "fluorescence", f"s{i == 1:d}", split]
        )
    path = folder / "index.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["image", "labels", "modality", "source", "split"], *rows])
    return path


@pytest.fixture
def parent_config():
    """Network of a model to fine-tune."""
    return StudentConfig(widths=(8, 8, 8), decoder_widths=(8, 8), head_width=8)


@pytest.fixture
def parent(save_network, parent_config, tmp_path):
    """Folder of a model to fine-tune; it knows little."""
    torch.manual_seed(0)
    network = build_student(parent_config)
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 64, 64))
    return save_network(tmp_path / "mine", network, parent_config, data=("somewhere",))


@pytest.fixture
def learn():
    """Return a function that takes the steps of a run until so many have been learnt."""

    def run(steps, number):
        while number:
            number -= next(steps).message == "training"

    return run


@pytest.fixture
def learnt():
    """Return a function that says which reports are of steps that were learnt."""
    return lambda seen: [progress for progress in seen if progress.message == "training"]
