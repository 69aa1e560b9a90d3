"""A model as a package of the BioImage.IO model zoo, described and validated by its own library."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.channels import InputMap, scale_limits
from napari_nucleus_kd.errors import ModelError
from napari_nucleus_kd.package import model_roots

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_nucleus_kd.package import Model, ModelSpec
    from napari_nucleus_kd.types import FloatArray

_TAGS = (
    "nuclei",
    "nucleus",
    "cells",
    "tissue",
    "2d",
    "fluorescence-light-microscopy",
    "transmission-light-microscopy",
    "whole-slide-imaging",
    "histology",
    "instance-segmentation",
    "semantic-segmentation",
    "pytorch",
    "unet",
)
# word in the model's data -> what to cite for it
_PAPERS = {
    "DSB2018": (
        "Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl, "
        "Nature Methods 16, 2019",
        "10.1038/s41592-019-0612-7",
    ),
    "CoNSeP": (
        "Graham et al., HoVer-Net: simultaneous segmentation and classification of nuclei in "
        "multi-tissue histology images, Medical Image Analysis 58, 2019",
        "10.1016/j.media.2019.101563",
    ),
}

_USE = """

## In BioImage.IO software

The input is a picture of three channels, each edge a multiple of {multiple} px, at a scale where nuclei are
{low:g} to {high:g} px across. A grey picture, such as DAPI, is given three times; a colour picture as red,
green and blue.

The outputs are maps, not labelled nuclei: {maps}. napari-nucleus-kd makes nuclei of them
(`napari_nucleus_kd.instances.decode`); it also finds the size of the nuclei and rescales the picture, which
BioImage.IO software does not. Tiles should overlap by {context} px.

The preprocessing brings percentile {p_low:g} of each picture to 0 and percentile {p_high:g} to 1, over all
channels together. For a grey picture given three times this is what napari-nucleus-kd does. Where it differs:

- in H&E and IHC napari-nucleus-kd keeps black at 0, rather than percentile {p_low:g};
- with several fluorescence channels it scales each alone and gives the network the brightest, three times;
- it measures the whole image, not a tile.

Licence as the model states it: {licence}.

## Validation

The numbers above are of the whole of napari-nucleus-kd, with rescaling and decoding. To repeat them on
annotated images: `nucleus-kd evaluate --data FOLDER --model {name}`.
"""


def write_bioimageio(
    model: Model, torchscript: Path, onnx: Path, target: Path, authors: Sequence[str] = ()
) -> None:
    """Write and validate a BioImage.IO model package (a zip file with rdf.yaml, format 0.5).

    Parameters
    ----------
    torchscript, onnx : the network's files, already tested. The other files are written beside them.
    authors : who made the model; none, for a shipped model: its developers.

    Raises
    ------
    ModelError : the library finds the package invalid.
    """
    from bioimageio.spec import ValidationContext, save_bioimageio_package

    folder = target.parent
    picture, expected = _test_tensors(model)
    np.save(folder / "test_input.npy", picture)
    np.save(folder / "test_output.npy", expected)
    (folder / "README.md").write_text(model.card.rstrip() + _usage(model.spec), encoding="utf-8")
    if not authors and model.folder.parent == model_roots()[0]:
        authors = ("napari-nucleus-kd developers",)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "unclosed file", ResourceWarning)  # by the library
            with ValidationContext(root=folder, perform_io_checks=True):
                description = _describe(model, torchscript, onnx, authors)
            save_bioimageio_package(description, output_path=target)
    except ValueError as error:
        raise ModelError(f"{model.spec.name} does not make a valid BioImage.IO package: {error}") from error


def _test_tensors(model: Model) -> tuple[FloatArray, FloatArray]:
    """Return the test input, and what the network makes of it after the package's own preprocessing."""
    import torch

    picture, _ = model.test_pair()
    low, high = scale_limits(picture.reshape(1, -1), model.spec.percentiles)
    scaled = InputMap((0, 1, 2), True, low * 3, high * 3).apply(picture[0])
    with torch.inference_mode():
        return picture, model.network()(torch.from_numpy(scaled[None])).numpy()


def _usage(spec: ModelSpec) -> str:
    from napari_nucleus_kd.networks.student import CONTEXT_PX

    return _USE.format(
        context=CONTEXT_PX,
        multiple=spec.multiple_px,
        low=spec.size_range[0],
        high=spec.size_range[1],
        maps=", ".join(spec.maps),
        p_low=spec.percentiles[0],
        p_high=spec.percentiles[1],
        licence=spec.licence or "not stated",
        name=spec.name,
    )


def _describe(model: Model, torchscript: Path, onnx: Path, authors: Sequence[str]) -> Any:
    import torch
    from bioimageio.spec.model import v0_5 as rdf

    spec, folder = model.spec, torchscript.parent
    papers = [paper for word, paper in _PAPERS.items() if any(word in line for line in spec.data)]
    weights = rdf.WeightsDescr(
        torchscript=rdf.TorchscriptWeightsDescr(source=torchscript, pytorch_version=torch.__version__),
        onnx=rdf.OnnxWeightsDescr(source=onnx, opset_version=_opset(onnx), parent="torchscript"),
    )
    return rdf.ModelDescr(
        name=f"Nuclei ({re.sub('[^A-Za-z0-9_+-]', '-', spec.name)})",
        description="Maps from which napari-nucleus-kd outlines nuclei in fluorescence, H&E and IHC images.",
        version=spec.version if re.fullmatch(r"\d+(\.\d+)*", spec.version) else None,
        authors=[rdf.Author(name=name) for name in authors],
        cite=[rdf.CiteEntry(text=text, doi=rdf.Doi(doi)) for text, doi in papers],
        license=_licence(rdf, spec.licence),
        tags=list(_TAGS),
        documentation=rdf.FileDescr(source=folder / "README.md"),
        inputs=[_input(rdf, spec, folder / "test_input.npy")],
        outputs=[_output(rdf, spec, folder / "test_output.npy")],
        weights=weights,
        config=rdf.Config(nucleus_kd=spec.model_dump(mode="json") | {"weights_sha256": model.hash}),
    )


def _input(rdf: Any, spec: ModelSpec, test: Path) -> Any:
    size = rdf.ParameterizedSize(min=spec.multiple_px, step=spec.multiple_px)
    low, high = spec.percentiles
    scale = rdf.ScaleRangeKwargs(axes=("channel", "y", "x"), min_percentile=low, max_percentile=high)
    return rdf.InputTensorDescr(
        id="input",
        description="A colour picture, or a grey one three times.",
        axes=[
            rdf.BatchAxis(),
            rdf.ChannelAxis(channel_names=["red", "green", "blue"]),
            rdf.SpaceInputAxis(id="y", size=size),
            rdf.SpaceInputAxis(id="x", size=size),
        ],
        data=rdf.IntervalOrRatioDataDescr(type="float32"),
        preprocessing=[
            rdf.ScaleRangeDescr(kwargs=scale),
            rdf.ClipDescr(kwargs=rdf.ClipKwargs(min=0.0, max=1.0)),
        ],
        test_tensor=rdf.FileDescr(source=test),
    )


def _output(rdf: Any, spec: ModelSpec, test: Path) -> Any:
    edges = [
        rdf.SpaceOutputAxis(id=edge, size=rdf.SizeReference(tensor_id="input", axis_id=edge)) for edge in "yx"
    ]
    return rdf.OutputTensorDescr(
        id="output",
        description="Maps from which nuclei are decoded.",
        axes=[rdf.BatchAxis(), rdf.ChannelAxis(channel_names=list(spec.maps)), *edges],
        data=rdf.IntervalOrRatioDataDescr(type="float32"),
        test_tensor=rdf.FileDescr(source=test),
    )


def _opset(path: Path) -> int:
    import onnx

    return int(onnx.load(path, load_external_data=False).opset_import[0].version)


def _licence(rdf: Any, text: str) -> Any:
    """Return an SPDX identifier, or None for words of one's own; the documentation has these."""
    try:
        return rdf.LicenseId(text)
    except ValueError:
        return None
