"""A model on disk: a folder anyone can open, read and check, and that cannot run code.

model.json          what it is, how to use it, how good it is, SHA-256 of the weights
weights.safetensors the weights
card.md             for people: what it is for, what it was trained on, where it fails
test.safetensors    one input and the output it must give
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from math import inf, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from pydantic import Field, ValidationError, model_validator

from napari_nucleus_kd.config import DecodeSettings, Settings
from napari_nucleus_kd.errors import ModelError, WriteError
from napari_nucleus_kd.io.atomic import put_in_place
from napari_nucleus_kd.io.checked import MAX_TENSOR_BYTES, MAX_TEXT_BYTES, read_tensors, read_text, sha256
from napari_nucleus_kd.types import Modality

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from napari_nucleus_kd.types import FloatArray

_SPEC_FILE, _WEIGHTS_FILE, _CARD_FILE, _TEST_FILE = (
    "model.json",
    "weights.safetensors",
    "card.md",
    "test.safetensors",
)
FILES = {  # of a package, and how many bytes each may have
    _SPEC_FILE: MAX_TEXT_BYTES,
    _WEIGHTS_FILE: MAX_TENSOR_BYTES,
    _CARD_FILE: MAX_TEXT_BYTES,
    _TEST_FILE: MAX_TENSOR_BYTES,
}
_MAX_TEST_PIXELS = 2048 * 2048
TOLERANCE = 2e-3  # float32 on another processor rounds differently

THREE_CLASSES = "three-classes"
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
    "fixed-adapter": (
        "napari_nucleus_kd.networks.adapter:FixedConfig",
        "napari_nucleus_kd.networks.adapter:FixedAdapter",
    ),
    "invariant-adapter": (
        "napari_nucleus_kd.networks.adapter:InvariantConfig",
        "napari_nucleus_kd.networks.adapter:InvariantAdapter",
    ),
    "enhancer": (
        "napari_nucleus_kd.networks.enhancer:GeneratorConfig",
        "napari_nucleus_kd.networks.enhancer:Generator",
    ),
    THREE_CLASSES: (
        "napari_nucleus_kd.networks.enhancer:ThreeClassConfig",
        "napari_nucleus_kd.networks.enhancer:ThreeClassNet",
    ),
}

Role = Literal["model", "adapter", "enhancer"]
_ROLES: dict[str, Role] = {  # of the architectures that find no nuclei, but make what is seen of an image
    "fixed-adapter": "adapter",
    "invariant-adapter": "adapter",
    "enhancer": "enhancer",
}
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # of a model


class ModelSpec(Settings):
    """What a model is and how to use it; model.json, without the checksum."""

    name: str = Field(pattern=NAME_PATTERN)
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
    expected_px: dict[Modality, float] = Field(
        {}, description="Nucleus diameter at which a kind of image is first looked at; of others as it is"
    )
    decode: DecodeSettings = DecodeSettings()
    percentiles: tuple[float, float] = (1.0, 99.8)
    licence: str = ""
    data: tuple[str, ...] = Field((), description="What it was trained on")
    metrics: dict[str, Any] = Field({}, description="How good it was on images it had not seen")
    parent: str | None = Field(None, description="The model it was trained from")

    @property
    def role(self) -> Role:
        """What it is for: "model" finds nuclei, "adapter" mixes channels, "enhancer" draws nuclei anew."""
        return _ROLES.get(self.architecture, "model")

    @property
    def rescales(self) -> bool:
        """Whether nuclei are brought to one size before it sees them, as students need it."""
        return self.role == "model" and self.architecture != THREE_CLASSES

    @model_validator(mode="after")
    def _sizes_in_order(self) -> ModelSpec:
        low, high = self.size_range
        if not 1 < low <= (self.enlarge_to_px or low) <= high:
            raise ValueError("size_range and enlarge_to_px must be above 1 px, and in order")
        if not all(1 < px < inf for px in self.expected_px.values()):
            raise ValueError("expected_px must be above 1 px")
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

    @property
    def role(self) -> Role:
        """What it is for."""
        return self.spec.role

    @property
    def parameters(self) -> int | None:
        """Number of weights, counted without loading them; None if the file cannot be read."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.folder / _WEIGHTS_FILE, framework="numpy") as file:
                return sum(prod(map(int, file.get_slice(name).get_shape())) for name in file.keys())
        except (SafetensorError, OSError):
            return None

    def network(self) -> nn.Module:
        """Return the network in float32 on the CPU, ready to run (eval mode).

        Raises
        ------
        ModelError if the weights do not fit the architecture.
        """
        import torch

        state = read_tensors(self.folder / _WEIGHTS_FILE)
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

    def verify(self) -> float:
        """Run the test input and return the largest difference from the expected output.

        Raises
        ------
        ModelError if it differs: the weights, or this installation of torch, are not right.
        """
        import torch

        picture, expected = self.test_pair()
        network = self.network()
        try:
            with torch.inference_mode():
                given = network(torch.from_numpy(picture)).numpy()
        except RuntimeError as error:  # multiple_px of a foreign file need not be true
            raise ModelError(f"{self.folder}: the network cannot take its test input: {error}") from error
        return largest_difference(given, expected, str(self.folder))

    def test_pair(self) -> tuple[FloatArray, FloatArray]:
        """Return the test input, (1, 3, H, W) float32, and the output it must give, (1, M, H, W).

        Raises
        ------
        ModelError if the file is damaged, or its arrays do not fit the network.
        """
        pair = read_tensors(self.folder / _TEST_FILE)
        if set(pair) != {"input", "output"}:
            raise ModelError(f"{self.folder / _TEST_FILE} must hold 'input' and 'output', not {sorted(pair)}")
        picture, expected = pair["input"], pair["output"]
        height, width = picture.shape[2:] if picture.ndim == 4 else (0, 0)
        step = self.spec.multiple_px
        if (
            picture.shape[:2] != (1, 3)
            or expected.shape != (1, len(self.spec.maps), height, width)
            or any(edge == 0 or edge % step for edge in (height, width))
            or height * width > _MAX_TEST_PIXELS
        ):
            raise ModelError(
                f"{self.folder / _TEST_FILE}: an input of shape {picture.shape} with an output of shape "
                f"{expected.shape}; it must be (1, 3, H, W) and (1, {len(self.spec.maps)}, H, W), "
                f"H and W multiples of {step}, at most {_MAX_TEST_PIXELS} pixels. Get the package again."
            )
        return picture.astype(np.float32), expected.astype(np.float32)


def largest_difference(
    given: FloatArray, expected: FloatArray, of: str, tolerance: float = TOLERANCE
) -> float:
    """Return how far a network's output is from the one it must give, at the worst pixel.

    Parameters
    ----------
    given, expected : (N, M, H, W).
    of : what gave the output; for the message.
    tolerance : largest difference allowed, in units of the largest expected value where that is above 1.

    Raises
    ------
    ModelError if the shapes differ or the difference is larger.
    """
    if given.shape != expected.shape:
        raise ModelError(f"{of}: output has shape {given.shape}, expected {expected.shape}")
    worst = float(np.abs(given - expected).max())
    if not worst <= tolerance * max(1.0, float(np.abs(expected).max())):
        raise ModelError(
            f"{of}: the test output differs by {worst:.3g} (allowed {tolerance}); "
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
    WriteError if the folder exists and overwrite is False, or if it is no package.
    ModelError if the network does not fit the spec.
    """
    folder = Path(folder)
    check_place(folder, overwrite=overwrite)
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


def check_place(folder: Path, *, overwrite: bool) -> None:
    """Raise WriteError if there is a folder of that name, unless it is a model that may be replaced."""
    if folder.exists() and not is_package(folder):
        raise WriteError(f"{folder} exists and is no model; choose another name")
    if folder.exists() and not overwrite:
        raise WriteError(f"{folder} exists; choose another name, or --overwrite replaces it")


def load_model(name_or_path: str | os.PathLike[str]) -> Model:
    """Find a model: shipped with the package, then in the user's data folder, then as a path.

    A name is the one that the model itself gives and `list_models` shows; the name of its folder works too.

    Raises
    ------
    ModelError if there is none, or it is damaged; lists the models that are there and the one that was meant.
    """
    name = os.fspath(name_or_path)
    names = _folders()
    for folder, shown in names.items():
        if shown == name:
            return open_model(folder)
    for folder in names:
        if folder.name == name:
            return open_model(folder)
    if (Path(name) / _SPEC_FILE).is_file():
        return open_model(Path(name))
    if Path(name).is_file():
        raise ModelError(f"{name} is a file; a model is a folder. nucleus-kd models install takes a zip file")
    if inside := model_inside(Path(name)):
        raise ModelError(f"{name} is no model, but there is one in it; did you mean {inside}?")
    there = ", ".join(sorted(names.values())) or "none"
    beside = (str(folder) for folder in model_folders(Path(name).parent))
    raise ModelError(
        f"no model {name!r}: neither a shipped or installed name ({there}) nor a folder with {_SPEC_FILE}"
        + did_you_mean(name, [*names.values(), *beside])
    )


def model_inside(folder: Path) -> Path | None:
    """Return the first model in a folder that is none itself, as that of a run; None if there is none."""
    return next(iter(model_folders(folder)), None)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a question for the end of a message, naming what is spelt most like a name; "" if nothing is."""
    spelt = {each.casefold(): each for each in names}
    near = get_close_matches(name.casefold(), spelt, n=1)
    return f"; did you mean {spelt[near[0]]}?" if near else ""


def list_models(role: Role = "model") -> tuple[Model, ...]:
    """Return the models that are shipped or installed; damaged ones are left out, see `survey_models`.

    Parameters
    ----------
    role : "model" for those that find nuclei, else "adapter" or "enhancer".
    """
    return tuple(model for model in survey_models()[0] if model.role == role)


def survey_models() -> tuple[tuple[Model, ...], dict[Path, str]]:
    """Return the models that are shipped or installed, and why the damaged ones are not, by folder."""
    models: list[Model] = []
    damaged: dict[Path, str] = {}
    for folder in _folders():
        try:
            models.append(open_model(folder))
        except ModelError as error:
            damaged[folder] = str(error)
    return tuple(models), damaged


def model_roots() -> tuple[Path, Path]:
    """Return the folder of shipped models and the folder of the user's own."""
    from platformdirs import user_data_path

    return Path(__file__).parent / "models", user_data_path("napari-nucleus-kd", appauthor=False) / "models"


def model_folders(root: Path) -> dict[Path, str]:
    """Return the folders of packages in a folder, and the name that each model gives itself."""
    files = sorted(root.glob(f"*/{_SPEC_FILE}"))
    return {f.parent: _shown_name(f.parent) for f in files if not f.parent.name.startswith(".")}


def is_package(folder: Path) -> bool:
    """Tell whether a folder holds a model, perhaps a damaged one."""
    return (folder / _SPEC_FILE).is_file()


def _folders() -> dict[Path, str]:
    found: dict[str, tuple[Path, str]] = {}
    for root in model_roots():
        for folder, name in model_folders(root).items():
            found.setdefault(folder.name, (folder, name))
    return dict(found.values())


def _shown_name(folder: Path) -> str:
    """Return the name a model gives itself, its folder's where that cannot be read."""
    try:
        name = json.loads(read_text(folder / _SPEC_FILE))["name"]
    except (ModelError, ValueError, RecursionError, TypeError, KeyError):
        return folder.name
    return name if isinstance(name, str) else folder.name


def open_model(folder: Path) -> Model:
    """Read the package in a folder and compare its weights with their SHA-256; no network is made.

    Raises
    ------
    ModelError if a file is missing, damaged or not of this form.
    """
    try:
        raw = json.loads(read_text(folder / _SPEC_FILE))
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
    found = sha256(folder / _WEIGHTS_FILE)
    if found != expected:
        raise ModelError(
            f"{folder / _WEIGHTS_FILE} has SHA-256 {found[:12]}..., "
            f"not {str(expected)[:12]}... as {_SPEC_FILE} says; get the package again"
        )
    card = folder / _CARD_FILE
    return Model(spec, folder, found, read_text(card) if card.is_file() else "")


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
    digest = sha256(folder / _WEIGHTS_FILE)
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
