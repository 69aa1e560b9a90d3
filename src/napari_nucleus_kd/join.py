"""Makes one model of several: slower, a little better, and a teacher for small ones."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from napari_nucleus_kd.errors import ModelError, SettingsError
from napari_nucleus_kd.package import NAME_PATTERN, ModelSpec, check_place, load_model, save_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_nucleus_kd.package import Model

_SHARED = ("maps", "diameter_px", "percentiles", "multiple_px")  # what all members must agree on


def join_models(
    models: Sequence[Model], name: str, folder: Path, *, flips: bool = True, overwrite: bool = False
) -> Model:
    """Write a model whose maps are the mean of what others say of a picture.

    Parameters
    ----------
    models : students; the first one's range of sizes and decode settings are taken.
    name : of the new model.
    folder : its place.
    flips : take the mean over the three mirror pictures, too: four times the work.
    overwrite : replace a model that is there.

    Raises
    ------
    SettingsError : no name for a model, or one model is named twice. ModelError : they do not fit each other.
    WriteError : the folder exists and overwrite is False, or it is no model, or the disk refuses.
    """
    from napari_nucleus_kd.networks.ensemble import EnsembleConfig, build_ensemble

    check_place(folder, overwrite=overwrite)
    first = models[0].spec
    for i, model in enumerate(models):
        twin = next((other for other in models[:i] if other.hash == model.hash), None)
        if twin is not None:
            raise SettingsError(
                f"{twin.folder} and {model.folder} have the same weights: a model counts once; leave one out"
            )
        if model.spec.architecture != "student":
            raise ModelError(f"{model.spec.name} is itself an ensemble; name its members instead")
        differing = [field for field in _SHARED if getattr(model.spec, field) != getattr(first, field)]
        if differing:
            raise ModelError(f"{model.spec.name} and {first.name} differ in {', '.join(differing)}")
    if not re.match(NAME_PATTERN, name):
        raise SettingsError(f"{name!r} cannot be a model's name: letters, digits and . _ - only")
    config = EnsembleConfig.model_validate(
        {"members": [model.spec.options for model in models], "flips": flips}
    )
    network = build_ensemble(config)
    for member, model in zip(network.members, models, strict=True):
        member.load_state_dict(model.network().state_dict())
    spec = ModelSpec.model_validate(
        first.model_dump(exclude={"metrics", "parent", "licence", "data"})
        | {
            "name": name,
            "version": datetime.now(UTC).strftime("%Y.%m.%d"),
            "architecture": "ensemble",
            "options": config.model_dump(mode="json"),
            "licence": "; ".join(dict.fromkeys(model.spec.licence for model in models if model.spec.licence)),
            "data": tuple(dict.fromkeys(line for model in models for line in model.spec.data)),
        }
    )
    picture, _ = models[0].test_pair()
    save_model(
        folder, network.eval(), spec, _card(spec, models, flips), picture[0], half=True, overwrite=overwrite
    )
    return load_model(folder)


def _card(spec: ModelSpec, models: Sequence[Model], flips: bool) -> str:
    members = ", ".join(f"{model.spec.name} {model.spec.version}" for model in models)
    mirrors = " and of its three mirror pictures" if flips else ""
    return "\n".join(
        [
            f"# {spec.name} {spec.version}",
            "",
            f"The mean of what {members} say of a picture{mirrors}. A teacher: see the members' cards.",
            "",
            "## Data and licence",
            "",
            *(f"- {line}" for line in spec.data),
            f"- Licence of the weights: {spec.licence or 'not stated'}",
            "",
            "## Metrics",
            "",
            "Not judged as a whole: nucleus-kd evaluate does that.",
            "",
            *(f"## Card of {model.spec.name}\n\n{_shifted(model.card)}\n" for model in models),
        ]
    )


def _shifted(card: str) -> str:
    """Return a card with its headings one level lower."""
    return "\n".join("#" + line if line.startswith("#") else line for line in card.splitlines())
