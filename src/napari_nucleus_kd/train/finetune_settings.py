"""What a person chooses of a fine-tuning run; the window shows it before anything of a run is loaded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from napari_nucleus_kd.config import Settings


class FinetuneSettings(Settings):
    """How a model is fine-tuned; the defaults suit a few verified tiles and a minute of time."""

    steps: int = Field(100, ge=1, description="Batches to learn from")
    learning_rate: float = Field(6e-4, gt=0, description="Size of a step; larger learns and forgets faster")
    keep: float = Field(
        1.0, ge=0, description="Weight of what the old model says where nobody verified; 0 lets it forget"
    )
    blend: float = Field(
        0.75,
        gt=0,
        le=1,
        description="Share of the learnt weights, the rest being the old ones; less forgets less",
    )
    batch: int = Field(4, ge=1, description="Crops a step")
    crop_px: int = Field(192, ge=64, multiple_of=32, description="Edge of a crop, in network pixels")
    check_every: int = Field(20, ge=1, description="Steps between looks at what is held out")
    early_stop: int | None = Field(None, ge=1, description="Stop after so many checks without improvement")
    seed: int = Field(0, ge=0, lt=2**32)
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="What it is trained and judged on"
    )
