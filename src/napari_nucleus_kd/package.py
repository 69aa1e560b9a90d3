"""A model on disk: a folder anyone can open, read and check, and that cannot run code.

model.json          what it is, how to use it, how good it is, SHA-256 of the weights
weights.safetensors the weights
card.md             for people: what it is for, what it was trained on, where it fails
test.safetensors    one input and the output it must give
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pydantic import Field, ValidationError, model_validator

from napari_nucleus_kd.config import DecodeSettings, Settings
from napari_nucleus_kd.errors import ModelError, WriteError
from napari_nucleus_kd.io.atomic import put_in_place

if TYPE_CHECKING:
    from torch import nn

    from napari_nucleus_kd.types import FloatArray

_SPEC_FILE, _WEIGHTS_FILE, _CARD_FILE, _TEST_FILE = (
    "model.json",
    "weights.safetensors",
    "card.md",
    "test.safetensors",
)
_MAX_TEXT_BYTES = 256 * 1024
_MAX_TENSOR_BYTES = 4 * 1024**3
_TOLERANCE = 2e-3  # float32 on another processor rounds differently

# architecture -> (settings class, function that builds the network from them)
_ARCHITECTURES = {
    "student": (
        "napari_nucleus_kd.networks.student:StudentConfig",
        "napari_nucleus_kd.networks.student:build_student",
    ),
    "ensemble": (
        "napari_nucleus_kd.networks.ensemble:EnsembleConfig",
        "napari_nucleus_kd.networks.ensemble:build_ensemble",
    ),
}


class ModelSpec(Settings):
    """What a model is and how to use it; model.json, without the checksum."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    version: str
    architecture: str = Field(description="One of the architectures this package knows")
    options: dict[str, Any] = Field({}, description="Settings of the architecture")
    maps: tuple[str, ...] = Field(min_length=1, description="Names of the output maps, in order")
    multiple_px: int = Field(32, ge=1, le=1024, description="Input height and width are multiples of this")
    diameter_px: float = Field(gt=1, description="Nucleus diameter the network was trained at")
    size_range: tuple[float, float] = Field(description="Diameters, px, taken without rescaling")
    enlarge_to_px: float | None = Field(
        None, gt=1, description="Smaller nuclei are enlarged to this diameter; None: to the end of size_range"
    )
    decode: DecodeSettings = DecodeSettings()
    percentiles: tuple[float, float] = (1.0, 99.8)
    licence: str = ""
    data: tuple[str, ...] = Field((), description="What it was trained on")
    metrics: dict[str, Any] = Field({}, description="How good it was on images it had not seen")
    parent: str | None = Field(None, description="The model it was trained from")

    @model_validator(mode="after")
    def _sizes_in_order(self) -> ModelSpec:
        low, high = self.size_range
        if not 1 < low <= (self.enlarge_to_px or low) <= high:
            raise ValueError("size_range and enlarge_to_px must be above 1 px, and in order")
        return self


@dataclass(frozen=True, slots=True)
class Model:
    """A model package that was found and checked; `network()` reads the weights.

    Attributes
    ----------
    hash : SHA-256 of weights.safetensors.
    card : text for people, Markdown.
    """

    spec: ModelSpec
    folder: Path
    hash: str
    card: str

    def network(self) -> nn.Module:
        """Return the network in float32 on the CPU, ready to run (eval mode).

        Raises
        ------
        ModelError if the weights do not fit the architecture.
        """
        import torch

        state = _read_tensors(self.folder / _WEIGHTS_FILE)
        with torch.device("meta"):  # settings of a foreign file could ask for any amount of memory
            planned = {name: tuple(t.shape) for name, t in _build(self.spec).state_dict().items()}
        found = {name: tuple(t.shape) for name, t in state.items()}
        if planned != found:
            differing = sorted(name for name in planned | found if planned.get(name) != found.get(name))
            raise ModelError(
                f"{self.folder}: the weights do not fit architecture {self.spec.architecture!r}; "
                f"{len(differing)} tensors differ, the first is {differing[0]!r}. Get the package again."
            )
        network = _build(self.spec)
        tensors = {name: torch.from_numpy(array) for name, array in state.items()}
        network.load_state_dict(
            {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}, strict=True
        )
        return network.eval().requires_grad_(False)

    def test_input(self) -> FloatArray:
        """Return the picture that the package brings to be tested with, (3, H, W) float32 in [0, 1]."""
        picture: FloatArray = _read_tensors(self.folder / _TEST_FILE)["input"][0]
        return picture

    def verify(self) -> float:
        """Run the test input and return the largest difference from the expected output.

        Raises
        ------
        ModelError if it differs: the weights, or this installation of torch, are not right.
        """
        import torch

        pair = _read_tensors(self.folder / _TEST_FILE)
        if set(pair) != {"input", "output"}:
            raise ModelError(f"{self.folder / _TEST_FILE} must hold 'input' and 'output', not {sorted(pair)}")
        with torch.inference_mode():
            given = self.network()(torch.from_numpy(pair["input"]).float())[0].numpy()
        expected = pair["output"]
        if given.shape != expected.shape[1:] and given.shape != expected.shape:
            raise ModelError(f"{self.folder}: output has shape {given.shape}, expected {expected.shape}")
        worst = float(np.abs(given - expected).max())
        if not worst <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ModelError(
                f"{self.folder}: the test output differs by {worst:.3g} (allowed {_TOLERANCE}); "
                "the package is damaged or made by another version. Get it again."
            )
        return worst


def save_model(
    folder: str | os.PathLike[str],
    network: nn.Module,
    spec: ModelSpec,
    card: str,
    test_input: FloatArray,
    *,
    half: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a model package; under its final name it is whole or not there.

    Parameters
    ----------
    network : must have the architecture and options of `spec`.
    card : Markdown for people.
    test_input : (3, H, W) float32 in [0, 1], H and W multiples of spec.multiple_px.
    half : store the weights in float16, at half the size.
    overwrite : replace a package that is there.

    Raises
    ------
    WriteError if the folder exists and overwrite is False.
    ModelError if the network does not fit the spec.
    """
    folder = Path(folder)
    if folder.exists() and not overwrite:
        raise WriteError(f"{folder} exists; choose another name or overwrite it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model = _write_package(scratch, network, spec, card, test_input, half=half)
        model.verify()
        _open_to_all(scratch)
        put_in_place(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def load_model(name_or_path: str | os.PathLike[str]) -> Model:
    """Find a model: shipped with the package, then in the user's data folder, then as a path.

    A name is the one that the model itself gives and `list_models` shows; the name of its folder works too.

    Raises
    ------
    ModelError if there is none, or it is damaged; lists the models that are there.
    """
    name = os.fspath(name_or_path)
    names = {folder: _shown_name(folder) for folder in _folders()}
    for folder, shown in names.items():
        if shown == name:
            return _open(folder)
    for folder in names:
        if folder.name == name:
            return _open(folder)
    if (Path(name) / _SPEC_FILE).is_file():
        return _open(Path(name))
    there = ", ".join(sorted(names.values())) or "none"
    raise ModelError(
        f"no model {name!r}: neither a shipped or installed name ({there}) nor a folder with {_SPEC_FILE}"
    )


def list_models() -> tuple[Model, ...]:
    """Return the models that are shipped or installed; damaged ones are left out, see `survey_models`."""
    return survey_models()[0]


def survey_models() -> tuple[tuple[Model, ...], dict[Path, str]]:
    """Return the models that are shipped or installed, and why the damaged ones are not, by folder."""
    models: list[Model] = []
    damaged: dict[Path, str] = {}
    for folder in _folders():
        try:
            models.append(_open(folder))
        except ModelError as error:
            damaged[folder] = str(error)
    return tuple(models), damaged


def model_roots() -> tuple[Path, Path]:
    """Return the folder of shipped models and the folder of the user's own."""
    from platformdirs import user_data_path

    return Path(__file__).parent / "models", user_data_path("napari-nucleus-kd", appauthor=False) / "models"


def _folders() -> list[Path]:
    found: dict[str, Path] = {}
    for root in model_roots():
        for file in sorted(root.glob(f"*/{_SPEC_FILE}")):
            if not file.parent.name.startswith("."):
                found.setdefault(file.parent.name, file.parent)
    return list(found.values())


def _shown_name(folder: Path) -> str:
    """Return the name a model gives itself, its folder's where that cannot be read."""
    try:
        name = json.loads(_read_text(folder / _SPEC_FILE))["name"]
    except (ModelError, ValueError, RecursionError, TypeError, KeyError):
        return folder.name
    return name if isinstance(name, str) else folder.name


def _open(folder: Path) -> Model:
    try:
        raw = json.loads(_read_text(folder / _SPEC_FILE))
        if not isinstance(raw, dict):
            raise ModelError(f"{folder / _SPEC_FILE} must hold one JSON object")
        expected = raw.pop("weights_sha256", None)
        spec = ModelSpec.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{folder / _SPEC_FILE}: {where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{folder / _SPEC_FILE} is not JSON: {error}") from error
    _architecture(spec)
    found = _sha256(folder / _WEIGHTS_FILE)
    if found != expected:
        raise ModelError(
            f"{folder / _WEIGHTS_FILE} has SHA-256 {found[:12]}..., "
            f"not {str(expected)[:12]}... as {_SPEC_FILE} says; get the package again"
        )
    card = folder / _CARD_FILE
    return Model(spec, folder, found, _read_text(card) if card.is_file() else "")


def _write_package(
    folder: Path, network: nn.Module, spec: ModelSpec, card: str, test_input: FloatArray, *, half: bool
) -> Model:
    import torch
    from safetensors.numpy import save_file

    state = {}
    for name, tensor in network.state_dict().items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.half() if half else tensor.float()
        state[name] = tensor.contiguous().numpy()
    save_file(state, folder / _WEIGHTS_FILE)
    digest = _sha256(folder / _WEIGHTS_FILE)
    text = json.dumps(spec.model_dump(mode="json") | {"weights_sha256": digest}, indent=2)
    (folder / _SPEC_FILE).write_text(text + "\n", encoding="utf-8")
    (folder / _CARD_FILE).write_text(card, encoding="utf-8")
    model = Model(spec, folder, digest, card)
    batch = np.ascontiguousarray(test_input[None], dtype=np.float32)
    with torch.inference_mode():
        output = model.network()(torch.from_numpy(batch)).numpy()
    if output.shape[1] != len(spec.maps):
        raise ModelError(f"the network gives {output.shape[1]} maps, the spec names {len(spec.maps)}")
    save_file({"input": batch, "output": np.ascontiguousarray(output)}, folder / _TEST_FILE)
    return model


def _open_to_all(folder: Path) -> None:
    folder.chmod(0o755)  # temporary folders and safetensors files are private otherwise
    for file in folder.iterdir():
        file.chmod(0o644)


def _architecture(spec: ModelSpec) -> tuple[str, str]:
    if spec.architecture not in _ARCHITECTURES:
        raise ModelError(
            f"{spec.name}: unknown architecture {spec.architecture!r}, this version knows "
            f"{', '.join(_ARCHITECTURES)}; update napari-nucleus-kd"
        )
    return _ARCHITECTURES[spec.architecture]


def _build(spec: ModelSpec) -> nn.Module:
    settings, build = (_resolve(dotted) for dotted in _architecture(spec))
    try:
        return cast("nn.Module", build(settings.model_validate(spec.options)))
    except Exception as error:  # foreign options can break any layer's constructor
        raise ModelError(f"{spec.name}: options do not fit {spec.architecture!r}: {error}") from error


def _resolve(dotted: str) -> Any:
    module, name = dotted.split(":")
    return getattr(import_module(module), name)


def _read_tensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    _check_size(path, _MAX_TENSOR_BYTES)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a safetensors file: {error}. Get the package again.") from error
    return dict(tensors)


def _read_text(path: Path) -> str:
    _check_size(path, _MAX_TEXT_BYTES)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def _check_size(path: Path, limit: int) -> None:
    if not path.is_file():
        raise ModelError(f"{path} is missing; get the package again")
    if path.stat().st_size > limit:
        raise ModelError(f"{path} has {path.stat().st_size} bytes, more than the {limit} allowed")


def _sha256(path: Path) -> str:
    _check_size(path, _MAX_TENSOR_BYTES)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
