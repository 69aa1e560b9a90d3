"""Model packages in one zip file, and how a foreign one gets into the user's models folder, and out."""

from __future__ import annotations

import shutil
import stat
import uuid
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleus_kd.errors import ModelError, SettingsError, WriteError
from napari_nucleus_kd.io.atomic import put_in_place, scratch_folder
from napari_nucleus_kd.package import (
    FILES,
    did_you_mean,
    is_package,
    model_folders,
    model_inside,
    model_roots,
    open_model,
)

if TYPE_CHECKING:
    import os

    from napari_nucleus_kd.package import Model, ModelSpec

_MAX_ENTRIES = 1000
_CHUNK_BYTES = 1024 * 1024
# Weights hardly get smaller in a zip; a large file that unpacks to far more is there to fill the disk.
_RATIO_FREE_BYTES, _MAX_RATIO = 64 * 1024**2, 100
_BIOIMAGEIO = ("rdf.yaml", "bioimageio.yaml")  # by these names one knows a package of BioImage.IO
_DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def install_model(source: str | os.PathLike[str], *, overwrite: bool = False) -> Model:
    """Check a model package completely, then copy it into the user's models folder.

    Parameters
    ----------
    source : a package's folder, or a zip file with its four files at the top or in one folder.
    overwrite : replace an installed model of that name; a shipped one is never replaced.

    Returns
    -------
    The model where it now lies; under that name it is whole or not there.

    Raises
    ------
    ModelError if the package is damaged, unsafe or does not give its test output.
    WriteError if the name is taken or the disk refuses.
    """
    source, own = Path(source).expanduser(), model_roots()[1]
    try:
        with scratch_folder(own) as scratch:
            if source.is_dir():
                _check_folder(source)
                _copy_files(source, scratch)
            else:
                unpack(source, scratch)
            spec = _checked(scratch, source)
            folder = _folder_for(spec, overwrite=overwrite)
            put_in_place(scratch, folder)
    except OSError as error:
        raise WriteError(
            f"{source} cannot be installed in {own}: {error.strerror or error}; check space and permissions"
        ) from error
    return open_model(folder)


def pack(folder: Path, path: Path) -> None:
    """Write the files of a package, in one folder, to a zip file that `unpack` takes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in FILES:
            if (folder / name).is_file():
                archive.write(folder / name, f"{folder.name}/{name}")


def unpack(path: Path, folder: Path) -> None:
    """Write the files of a package in a zip file to a folder; everything else in it is left out.

    No name of the zip file becomes a path: the four names are ours.

    Raises
    ------
    ModelError if it is no zip file, is damaged or larger than allowed, or holds no package.
    """
    if not path.is_file():
        raise ModelError(f"{path} is not there; give the folder or the zip file of a model package")
    try:
        with zipfile.ZipFile(path) as archive:
            for name, entry in _find_files(archive, path).items():
                _check_entry(entry, FILES[name], path)
                _write_entry(archive, entry, folder / name, path)
    except _DAMAGES as error:
        raise ModelError(f"{path} is not a zip file that can be read: {error}. Get it again.") from error


def _find_files(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the entry of each file of the package that is there."""
    entries = archive.infolist()
    if len(entries) > _MAX_ENTRIES:
        raise ModelError(f"{path} holds {len(entries)} files, more than the {_MAX_ENTRIES} allowed")
    found: dict[str, dict[str, zipfile.ZipInfo]] = {}
    for entry in entries:
        parts = entry.filename.split("/")
        if ".." in parts or "" in parts[:-1] or "\\" in entry.orig_filename or ":" in entry.filename:
            raise ModelError(f"{path} holds the unsafe name {entry.filename!r}; do not trust its origin")
        if len(parts) <= 2 and parts[-1] in FILES:
            files = found.setdefault("/".join(parts[:-1]), {})
            if parts[-1] in files:
                raise ModelError(f"{path} holds {entry.filename} twice; pack it again")
            files[parts[-1]] = entry
    if not found and any(entry.filename.split("/")[-1] in _BIOIMAGEIO for entry in entries):
        raise ModelError(_foreign(path))
    if len(found) != 1:
        raise ModelError(
            f"{path} holds {len(found) or 'no'} model packages; it must hold {', '.join(FILES)} of one "
            "model, at the top or in one folder"
        )
    return next(iter(found.values()))


def _check_entry(entry: zipfile.ZipInfo, limit: int, path: Path) -> None:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ModelError(f"{path}: {entry.filename} is packed in an unusual way; pack it as an ordinary zip")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise ModelError(f"{path}: {entry.filename} is a link or device, not a file; pack it again")
    too_dense = entry.file_size > max(_RATIO_FREE_BYTES, _MAX_RATIO * entry.compress_size)
    if entry.file_size > limit or too_dense:
        raise ModelError(
            f"{path}: {entry.filename} unpacks from {entry.compress_size} to {entry.file_size} bytes, "
            f"more than the {limit} or the {_MAX_RATIO} times allowed; do not trust its origin"
        )


def _write_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, to: Path, path: Path) -> None:
    left = entry.file_size
    with archive.open(entry) as packed, to.open("wb") as file:
        while chunk := packed.read(_CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise ModelError(f"{path}: {entry.filename} is larger than the zip file says; get it again")
            file.write(chunk)


def _check_folder(folder: Path) -> None:
    """Raise ModelError if a folder is none of our packages, but something that is taken for one."""
    if is_package(folder):
        return
    if inside := model_inside(folder):
        raise ModelError(f"{folder} is no model, but there is one in it; did you mean {inside}?")
    if any((folder / name).is_file() for name in _BIOIMAGEIO):
        raise ModelError(_foreign(folder))


def _foreign(path: Path) -> str:
    return (
        f"{path} is a package for BioImage.IO software, which this program writes but cannot run. Open it in "
        "such software (bioimage.io); of a model made here, install what 'nucleus-kd models export --format "
        "zip' writes"
    )


def _copy_files(folder: Path, to: Path) -> None:
    for name, limit in FILES.items():
        if (folder / name).is_file() and (folder / name).stat().st_size <= limit:
            shutil.copyfile(folder / name, to / name)  # those left out are missed by the check


def _checked(scratch: Path, source: Path) -> ModelSpec:
    try:
        model = open_model(scratch)
        model.verify()
    except ModelError as error:
        raise ModelError(str(error).replace(str(scratch), str(source))) from error
    return model.spec


def _folder_for(spec: ModelSpec, *, overwrite: bool) -> Path:
    """Return where to put a model of this name.

    Raises
    ------
    WriteError if the name or the folder belongs to another model.
    """
    shipped, own = model_roots()
    name = spec.name.casefold()  # some disks do not tell A from a
    if any(name in (f.name.casefold(), n.casefold()) for f, n in model_folders(shipped).items()):
        raise WriteError(
            f"{spec.name} is the name of a shipped model, which cannot be replaced; "
            "give the new one another name in its model.json"
        )
    installed = model_folders(own)
    folder = next((f for f, n in installed.items() if n.casefold() == name), own / spec.name)
    if folder.exists() and installed.get(folder, "").casefold() != name:
        raise WriteError(f"{folder} is there and holds something else; move it away first")
    if folder in installed and not overwrite:
        raise WriteError(
            f"a model {spec.name} is installed in {folder}; --overwrite (overwrite=True) replaces it, "
            "or give the new one another name in its model.json"
        )
    return folder


def find_installed(name: str) -> Path:
    """Return the folder of a model that was installed and can be removed.

    Parameters
    ----------
    name : that the model gives itself, or of its folder among the installed ones; never a path.

    Raises
    ------
    ModelError : none is installed under this name. SettingsError : it came with the program.
    """
    shipped, own = model_roots()
    installed = model_folders(own)
    matches = [folder for folder, shown in installed.items() if shown == name]
    matches += [folder for folder in installed if folder.name == name]
    if matches:
        return matches[0]
    if any(name in (folder.name, shown) for folder, shown in model_folders(shipped).items()):
        raise SettingsError(f"{name} came with the program and cannot be removed; only installed models can")
    there = ", ".join(sorted(installed.values())) or "none"
    if name and Path(name).exists():
        raise ModelError(f"{name} is not among the installed models ({there}); remove the folder by hand")
    raise ModelError(
        f"no model {name!r} is installed; installed are: {there}" + did_you_mean(name, installed.values())
    )


def remove_model(name: str) -> Path:
    """Remove an installed model; where its folder is a link, only the link.

    Returns
    -------
    Where it was.

    Raises
    ------
    ModelError, SettingsError : see find_installed.
    WriteError : the folder holds something that is no part of a model, or the disk refuses.
    """
    folder = find_installed(name)
    if not folder.is_symlink():
        foreign = [f.name for f in folder.iterdir() if f.name not in FILES and not f.name.startswith(".")]
        if foreign:
            raise WriteError(
                f"{folder} holds {min(foreign)}, which is no part of a model; nothing was removed. Take "
                "out what you want to keep"
            )
    doomed = folder.with_name(
        f".remove-{uuid.uuid4().hex[:8]}"
    )  # the dot hides it; under its name it is gone
    try:
        folder.rename(doomed)
        if doomed.is_symlink():
            doomed.unlink()
        else:
            shutil.rmtree(doomed)
    except OSError as error:
        raise WriteError(
            f"{folder} cannot be removed: {error.strerror or error}; check permissions in {folder.parent}"
        ) from error
    return folder
