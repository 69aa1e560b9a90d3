"""Versions of a model: each is a package of its own among the installed ones, and those before it stay.

Of my-model they are my-model-1, my-model-2 and so on, whichever of them each was fine-tuned from. The one
with the highest number is the newest.
"""

from __future__ import annotations

import json
import re
import shutil
from itertools import count
from typing import TYPE_CHECKING

from napari_nucleus_kd.errors import WriteError
from napari_nucleus_kd.io.atomic import scratch_folder
from napari_nucleus_kd.package import FILES, list_models, load_model, model_folders, model_roots, open_model

if TYPE_CHECKING:
    from pathlib import Path

    from napari_nucleus_kd.package import Model, ModelSpec

_NUMBER = re.compile(r"-(\d{1,6})$")
_LONGEST = 57  # characters of a name, so that a number fits behind it


def base_name(spec: ModelSpec) -> str:
    """Return the name of the model that a version goes back to; of one that is no version, its own."""
    stem = _NUMBER.sub("", spec.name)
    if spec.parent is not None and stem in (spec.parent, _NUMBER.sub("", spec.parent)):
        return stem
    return spec.name[:_LONGEST]


def versions(name: str) -> tuple[Model, ...]:
    """Return the versions of a model, the oldest first; the last one is the newest.

    Parameters
    ----------
    name : of the model, or of any of its versions; or a folder.

    Raises
    ------
    ModelError : there is no such model.
    """
    base = base_name(load_model(name).spec)
    found = [model for model in list_models() if base_name(model.spec) == base]
    return tuple(sorted(found, key=lambda model: _number(model.spec.name, base)))


def restore(name: str) -> Model:
    """Make a version the newest again: a copy of it gets the next number, and nothing is taken away.

    Returns
    -------
    The newest version; the one of this name, if that is the newest already.

    Raises
    ------
    ModelError : there is no such model, or it is damaged. WriteError : the disk refuses.
    """
    model, there = load_model(name), versions(name)
    if there and there[-1].folder == model.folder:
        return model
    said = f"## Brought back\n\nThis version is a copy of {model.spec.name}.\n"
    return add_version(model.folder, base_name(model.spec), said, parent=model.spec.name)


def add_version(package: Path, base: str, said: str = "", *, parent: str | None = None) -> Model:
    """Put a copy of a model package among the installed ones, as the next version of a model.

    Its number is chosen at the moment it gets it: of two programs that add at once, each gets one of its own.

    Parameters
    ----------
    package : folder; not changed.
    base : name of the model that it is a version of, see base_name.
    said : Markdown that its card gets in addition.
    parent : the model that it was made from, if that is another one than the package says.

    Raises
    ------
    ModelError : the package is damaged, or does not give its test output. WriteError : the disk refuses.
    """
    own = model_roots()[1]
    try:
        with scratch_folder(own) as scratch:
            for name in FILES:
                if (package / name).is_file():
                    shutil.copyfile(package / name, scratch / name)
            open_model(scratch).verify()
            return open_model(_placed(scratch, own, base[:_LONGEST], said, parent))
    except OSError as error:
        raise WriteError(
            f"{package} cannot be installed in {own}: {error.strerror or error}; check space and permissions"
        ) from error


def _placed(scratch: Path, own: Path, base: str, said: str, parent: str | None) -> Path:
    """Give a package the next number, in its files and as the name of its folder; return that."""
    card = (scratch / "card.md").read_text(encoding="utf-8") if (scratch / "card.md").exists() else ""
    for number in count(1 + max((_number(name, base) for name in _taken()), default=0)):
        place = own / f"{base}-{number}"
        _name(scratch, place.name, f"{card.rstrip()}\n\n{said}" if said else card, parent)
        try:
            scratch.rename(place)  # fails if a folder with content is there: nothing is replaced
        except OSError:
            if not place.exists():
                raise
        else:
            return place
    raise AssertionError("numbers do not end")


def _name(folder: Path, name: str, card: str, parent: str | None) -> None:
    spec = json.loads((folder / "model.json").read_text(encoding="utf-8")) | {"name": name}
    if parent is not None:
        spec["parent"] = parent
    (folder / "model.json").write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")
    title = re.compile(r"\A# \S+")
    (folder / "card.md").write_text(title.sub(f"# {name}", card, count=1), encoding="utf-8")


def _taken() -> set[str]:
    """Return the names of all models that are there, damaged ones too, and of their folders."""
    found = [model_folders(root) for root in model_roots()]
    return {name for folders in found for folder, shown in folders.items() for name in (folder.name, shown)}


def _number(name: str, base: str) -> int:
    """Return the number of a version; 0 if the name has none."""
    match = _NUMBER.search(name)
    return int(match[1]) if match and name[: match.start()].casefold() == base.casefold() else 0
