"""Models in the formats of other programs; what was written is run and compared before it gets its name."""

from __future__ import annotations

import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleus_kd.errors import ModelError, NucleusKDError, SettingsError, WriteError
from napari_nucleus_kd.install import pack, unpack
from napari_nucleus_kd.io.atomic import put_in_place, scratch_beside
from napari_nucleus_kd.package import TOLERANCE, largest_difference, open_model
from napari_nucleus_kd.types import Progress

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Sequence

    from torch import nn

    from napari_nucleus_kd.package import Model
    from napari_nucleus_kd.types import FloatArray

    Run = Callable[[FloatArray], FloatArray]

_OPSET = 18  # of ONNX; what the exporter itself is written in, and old enough for most programs
_OPENVINO_TOLERANCE = 1e-2  # it chooses its own order of sums for each processor

# format -> how the output's name ends, and the optional libraries it takes
FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    "zip": (".zip", ()),
    "torchscript": (".pt", ()),
    "onnx": (".onnx", ("onnx", "onnxscript", "onnxruntime")),
    "openvino": ("", ("openvino",)),  # a folder
    "bioimageio": (".zip", ("bioimageio.spec", "onnx", "onnxscript", "onnxruntime")),
}


def export_steps(
    model: Model,
    output: str | os.PathLike[str],
    file_format: str,
    *,
    authors: Sequence[str] = (),
    overwrite: bool = False,
) -> Generator[Progress, None, Path]:
    """Write a model for other programs, run what was written, compare, and only then give it its name.

    Parameters
    ----------
    output : a file; for openvino a folder, which gets NAME.xml and NAME.bin.
    file_format : one of FORMATS.
    authors : who made the model; only a bioimageio package names them.
    overwrite : replace an export that is there.

    Returns
    -------
    Where it lies.

    Raises
    ------
    SettingsError : an unknown format, an adapter for another program, a name that does not end as its files
        must, a missing library.
    ModelError : the model does not give its test output, or what was written does not give it.
    WriteError : the output is there, or the disk refuses.
    """
    output = Path(output).expanduser().absolute()  # bioimageio.spec takes relative ones from elsewhere
    _check_request(output, file_format, overwrite=overwrite)
    if model.role != "model" and file_format != "zip":
        raise SettingsError(
            f"{model.spec.name} is an {model.role} and finds no nuclei: other programs have no place for it; "
            "export it as zip"
        )
    kinds = ("torchscript", "onnx") if file_format == "bioimageio" else (file_format,)
    total = len(kinds) + 2
    with scratch_beside(output) as scratch:
        target = scratch / output.name
        yield Progress(0, total, "checking the model")
        model.verify()
        files: dict[str, Path] = {}
        for done, kind in enumerate(kinds, start=1):
            yield Progress(done, total, f"writing and testing {kind}")
            files[kind] = target if len(kinds) == 1 else target.with_name(f"weights{FORMATS[kind][0]}")
            (_write_zip if kind == "zip" else _write_network)(model, files[kind], kind)
        if file_format == "bioimageio":
            from napari_nucleus_kd.export_bioimageio import write_bioimageio

            yield Progress(total - 1, total, "writing and validating the description")
            write_bioimageio(model, files["torchscript"], files["onnx"], target, authors)
        put_in_place(target, output)
        yield Progress(total, total, "done")
    return output


def _check_request(output: Path, file_format: str, *, overwrite: bool) -> None:
    if file_format not in FORMATS:
        raise SettingsError(f"unknown format {file_format!r}; choose from {', '.join(FORMATS)}")
    suffix, libraries = FORMATS[file_format]
    if output.suffix.lower() != suffix and suffix:
        raise SettingsError(f"{output}: the name of an export as {file_format} must end in {suffix}")
    for library in libraries:
        try:
            import_module(library)
        except ImportError as error:
            raise SettingsError(
                f"export as {file_format} needs {library}, which cannot be loaded ({error}); "
                "pip install 'napari-nucleus-kd[export]'"
            ) from error
    if output.exists() and not overwrite:
        raise WriteError(f"{output} exists; choose another name, or --overwrite replaces it")
    if output.is_dir():
        # Replacing goes by folder: never one that holds more than an earlier export.
        if suffix or any(file.suffix not in (".xml", ".bin") for file in output.iterdir()):
            raise WriteError(f"{output} is a folder that holds something else; choose another name")
    elif output.exists() and not suffix:
        raise WriteError(f"{output} is a file; an export as {file_format} is a folder: choose another name")


def _write_zip(model: Model, target: Path, _kind: str) -> None:
    again = target.with_name("again")
    again.mkdir()
    pack(model.folder, target)
    unpack(target, again)
    open_model(again).verify()


def _write_network(model: Model, target: Path, kind: str) -> None:
    """Convert a network and run the result on the test input, and on two pictures of another size."""
    import torch

    write, tolerance = _WRITERS[kind]
    picture, expected = model.test_pair()
    network, step = model.network(), model.spec.multiple_px
    other = np.random.default_rng(0).random(
        (2, 3, picture.shape[2] + step, picture.shape[3] + 2 * step), np.float32
    )
    try:
        with torch.inference_mode():
            other_expected = network(torch.from_numpy(other)).numpy()
        run = write(network, model, target)
        outputs = run(picture), run(other)
    except (OSError, NucleusKDError):
        raise
    except Exception as error:  # the libraries raise many kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{model.spec.name} cannot be converted to {kind}: {reason[:300]}") from error
    for given, wanted in zip(outputs, (expected, other_expected), strict=True):
        largest_difference(given, wanted, f"{model.spec.name} as {kind}", tolerance)


def _save_torchscript(network: nn.Module, model: Model, target: Path) -> Run:
    import torch

    from napari_nucleus_kd.engine import torchscript_allowed, trace

    traced = trace(network, torch.from_numpy(model.test_pair()[0]))
    with torchscript_allowed():
        torch.jit.save(traced, target, _extra_files={"model.json": model.spec.model_dump_json()})
        again = torch.jit.load(target, map_location="cpu")  # type: ignore[no-untyped-call]

    def run(batch: FloatArray) -> FloatArray:
        with torch.inference_mode():
            maps: FloatArray = again(torch.from_numpy(batch)).numpy()
        return maps

    return run


def _save_onnx(network: nn.Module, model: Model, target: Path) -> Run:
    import onnxruntime
    import torch

    from napari_nucleus_kd.engine import fuse

    step = model.spec.multiple_px
    batch, height, width = (torch.export.Dim(name, min=1) for name in ("batch", "height", "width"))
    shape = {0: batch, 2: step * height, 3: step * width}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)  # torch's exporter and torch disagree
        program = torch.onnx.export(
            fuse(network),
            (torch.zeros(2, 3, 2 * step, 3 * step),),  # an edge of 1 would be taken for fixed
            dynamo=True,
            dynamic_shapes=(shape,),
            input_names=["input"],
            output_names=["output"],
            opset_version=_OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props["model.json"] = model.spec.model_dump_json()
    program.save(target)
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])

    def run(batch: FloatArray) -> FloatArray:
        maps: FloatArray = session.run(None, {"input": batch})[0]
        return maps

    return run


def _save_openvino(network: nn.Module, model: Model, target: Path) -> Run:
    import openvino
    import torch

    from napari_nucleus_kd.engine import to_openvino

    converted = to_openvino(network, torch.from_numpy(model.test_pair()[0]))
    converted.inputs[0].tensor.set_names({"input"})
    converted.outputs[0].tensor.set_names({"output"})
    converted.set_rt_info(model.spec.model_dump_json(), ["nucleus_kd", "model.json"])
    target.mkdir()
    file = target / f"{model.spec.name}.xml"
    openvino.save_model(converted, file, compress_to_fp16=False)
    again: Any = openvino.Core().compile_model(
        file, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    )

    def run(batch: FloatArray) -> FloatArray:
        maps: FloatArray = np.array(again(batch)[0], np.float32)
        return maps

    return run


_WRITERS: dict[str, tuple[Callable[[nn.Module, Model, Path], Run], float]] = {
    "torchscript": (_save_torchscript, TOLERANCE),
    "onnx": (_save_onnx, TOLERANCE),
    "openvino": (_save_openvino, _OPENVINO_TOLERANCE),
}
