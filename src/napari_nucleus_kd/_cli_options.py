"""The options of `nucleus-kd segment`, `measure`, `models`, `train` and `evaluate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_nucleus_kd.types import Modality


class Format(StrEnum):
    """How labels are written."""

    TIFF = "tiff"
    OME_ZARR = "ome-zarr"


class By(StrEnum):
    """How maps become nuclei; see DecodeSettings."""

    VOTES = "votes"
    COMPONENTS = "components"


class ModelFormat(StrEnum):
    """What a model is exported as; the keys of export.FORMATS."""

    ZIP = "zip"
    TORCHSCRIPT = "torchscript"
    ONNX = "onnx"
    OPENVINO = "openvino"
    BIOIMAGEIO = "bioimageio"


class Polarity(StrEnum):
    """How nuclei look to an enhancer."""

    auto = "auto"
    bright = "bright"
    dark = "dark"


class Trained(StrEnum):
    """What `train` trains."""

    student = "student"
    enhancer = "enhancer"
    three_classes = "three-classes"


class ModalityName(StrEnum):
    """Modalities as one types them: a shell would take the & of H&E for its own."""

    FLUORESCENCE = "fluorescence"
    HE = "he"
    IHC = "ihc"


MODALITIES = {
    ModalityName.FLUORESCENCE: Modality.FLUORESCENCE,
    ModalityName.HE: Modality.HE,
    ModalityName.IHC: Modality.IHC,
}

_IMAGE, _NUCLEI, _OUTPUT = "What the image is", "How nuclei are found", "What is written"

Inputs = Annotated[
    list[str],
    typer.Argument(metavar="INPUT...", help="Images, folders of images, or quoted patterns like '*.tif'."),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for the results; made if absent.", file_okay=False)
]
FileFormat = Annotated[
    Format, typer.Option("--format", help="ome-zarr takes images of any size.", rich_help_panel=_OUTPUT)
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace results that are there.", rich_help_panel=_OUTPUT)
]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        help="Settings of an earlier run (*_recipe.json); other options go before it.",
        dir_okay=False,
    ),
]
Refit = Annotated[
    bool,
    typer.Option(
        "--refit",
        help="With --recipe: measure brightness and nucleus size anew in each image, and take all of it.",
    ),
]
Segmenter = Annotated[
    str | None,
    typer.Option(
        help="student (default), classical, or one of nucleus-kd baselines: cellpose, cellpose4, stardist.",
        rich_help_panel=_NUCLEI,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="Of cellpose or stardist: a file or folder, or the name of a model that the tool downloads.",
        rich_help_panel=_NUCLEI,
    ),
]
ToolName = Annotated[str, typer.Argument(metavar="NAME", help="cellpose, cellpose4 or stardist.")]
ToolPlace = Annotated[
    Path, typer.Argument(metavar="PYTHON", help="Interpreter of an environment, or the environment's folder.")
]
ToolPython = Annotated[
    str | None, typer.Option("--python", help="Interpreter to make the environment with; else this one.")
]
ToolExtra = Annotated[
    list[str] | None,
    typer.Option(
        "--with", help="One more requirement, for instance a build of torch; several times: several."
    ),
]
ToolWeights = Annotated[
    str, typer.Option("--weights", help="A file or folder, or the name of a model that the tool downloads.")
]
Model = Annotated[str | None, typer.Option(help="Name of a model, or its folder.", rich_help_panel=_NUCLEI)]
Device = Annotated[
    str | None, typer.Option(help="auto, cpu, openvino, cuda, cuda:N or mps.", rich_help_panel=_NUCLEI)
]


def _channels(help_text: str, **shown: Any) -> Any:
    return typer.Option("--channel", "-c", metavar="NAME|INDEX", help=help_text, **shown)


ChannelNames = Annotated[
    list[str] | None,
    _channels(
        "Nuclear channel by name, or by number from 0; may be given more than once.", rich_help_panel=_IMAGE
    ),
]
MappingName = Annotated[
    str | None,
    typer.Option(
        "--mapping",
        rich_help_panel=_IMAGE,
        help="From the channels to what the network sees: nuclear (default), blend, mean, first, "
        "haematoxylin, macenko, or an adapter like nucleus-adapter, which chooses among all channels itself.",
    ),
]
ChannelWeights = Annotated[
    list[float] | None,
    typer.Option(
        "--channel-weight",
        help="With --mapping blend: how much a nuclear channel counts; once for each, in the order of "
        "--channel, or of the image.",
        rich_help_panel=_IMAGE,
    ),
]
Stains = Annotated[
    tuple[float, float, float, float, float, float] | None,
    typer.Option(
        "--stains",
        metavar="R G B R G B",
        help="With --mapping haematoxylin or macenko: optical densities of haematoxylin, then of the other "
        "stain, in red, green and blue.",
        rich_help_panel=_IMAGE,
    ),
]
PanelFile = Annotated[
    Path | None,
    typer.Option(
        "--panel",
        help="Instead of --channel: a file of nucleus-kd panel or Save panel…, which says what the channels "
        "are for. Images that do not fit it are refused.",
        dir_okay=False,
        rich_help_panel=_IMAGE,
    ),
]
_ENHANCER = "Enhancer that draws the nuclei first: nucleus-enhancer, or the folder of one."
EnhancerName = Annotated[
    str | None, typer.Option("--enhance", help=f"{_ENHANCER} Default: none.", rich_help_panel=_NUCLEI)
]
Enhancer = Annotated[
    str | None, typer.Option("--enhancer", help=f"{_ENHANCER} Default: the recipe's, or nucleus-enhancer.")
]
PolarityOption = Annotated[
    Polarity | None,
    typer.Option(
        "--polarity",
        help="How nuclei look to the enhancer: bright, dark, or auto (dark in H&E and IHC, and where most of "
        "a grey picture is bright; else bright).",
        rich_help_panel=_NUCLEI,
    ),
]
Percentiles = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--percentiles",
        metavar="LOW HIGH",
        help="Of the intensities, in percent: what the network sees as 0 and 1; default: the model's.",
        rich_help_panel=_IMAGE,
    ),
]
PanelOutput = Annotated[
    Path, typer.Option("--output", "-o", help="Panel file to write, NAME.json.", dir_okay=False)
]
ReplacePanel = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]
PanelImage = Annotated[Path, typer.Argument(metavar="IMAGE", help="An image with its channels named.")]
SampleNames = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Which of them; default: all.")
]
SamplesOutput = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for the images and labels.", file_okay=False)
]
ReplaceSamples = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]
DataChannels = Annotated[
    list[str] | None,
    _channels(
        "Nuclear channel of images with several, by name, or by number from 0; may be given more than once. "
        "Default: those named like a nuclear stain."
    ),
]
ModalityOption = Annotated[
    ModalityName | None,
    typer.Option(
        "--modality", case_sensitive=False, help="Default: told from the pixels.", rich_help_panel=_IMAGE
    ),
]
PixelSize = Annotated[
    float | None,
    typer.Option(
        "--pixel-size",
        metavar="UM",
        help="Edge of one pixel in um, if the file is wrong or silent.",
        rich_help_panel=_IMAGE,
    ),
]
Series = Annotated[
    int, typer.Option(min=0, help="Which picture of a file with several.", rich_help_panel=_IMAGE)
]
Plane = Annotated[
    int | None,
    typer.Option("--z", min=0, help="Plane of a stack, from 0; default: the middle.", rich_help_panel=_IMAGE),
]
Time = Annotated[int, typer.Option("--t", min=0, help="Time point, from 0.", rich_help_panel=_IMAGE)]
RegionOption = Annotated[
    tuple[int, int, int, int] | None,
    typer.Option(
        "--region",
        metavar="Y0 X0 Y1 X1",
        help="Only this part of the image, in pixels; its end is not included.",
        rich_help_panel=_IMAGE,
    ),
]
Diameter = Annotated[
    float | None,
    typer.Option(
        "--diameter",
        metavar="PX",
        help="Typical nucleus in pixels; default: estimated.",
        rich_help_panel=_NUCLEI,
    ),
]
DiameterUm = Annotated[
    float | None,
    typer.Option(
        "--diameter-um", metavar="UM", help="The same in um; needs a pixel size.", rich_help_panel=_NUCLEI
    ),
]
DecodeBy = Annotated[
    By | None,
    typer.Option(
        "--decode",
        help="votes (default) takes touching nuclei apart; components: what is connected is one nucleus.",
        rich_help_panel=_NUCLEI,
    ),
]
Foreground = Annotated[
    float | None,
    typer.Option(help="0.01 to 0.99: pixels at least this probable are nucleus.", rich_help_panel=_NUCLEI),
]
Split = Annotated[
    float | None,
    typer.Option(help="0 to 1: 0 joins touching nuclei, 1 splits them readily.", rich_help_panel=_NUCLEI),
]
MinScore = Annotated[
    float | None,
    typer.Option(
        "--min-score",
        help="0 to 1: nuclei that the model is less sure of are removed.",
        rich_help_panel=_NUCLEI,
    ),
]
MinArea = Annotated[
    int | None,
    typer.Option(
        "--min-area", metavar="PX", help="Smaller objects are removed; in pixels.", rich_help_panel=_NUCLEI
    ),
]
FillHoles = Annotated[
    bool | None,
    typer.Option("--fill-holes/--keep-holes", help="Fill holes inside a nucleus.", rich_help_panel=_NUCLEI),
]
Index = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Folder of images and label images; or CSV: image, labels, modality, source, split.",
    ),
]
CompareData = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Images with labels: a folder, or CSV: image, labels, modality, source, split."
    ),
]
CompareInputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[INPUT]...",
        help="Instead of --data, without ground truth: images, folders of images, or quoted patterns.",
    ),
]
Contestants = Annotated[
    list[str] | None,
    typer.Option(
        "--segmenter",
        "-s",
        metavar="[NAME=]WHICH[@DIAMETER]",
        help="Several times: student, student:MODEL, classical, cellpose:WEIGHTS, stardist:WEIGHTS, "
        "labels:FOLDER (label images of another program), or a recipe file; by default student and "
        "classical. The others are tested against the first. DIAMETER: pixels, own (what it was made for) or "
        "annotated (the median of the labels).",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, help="That each network takes on the processor, also of the tools; else as they choose."
    ),
]
MeasuredImage = Annotated[str, typer.Argument(metavar="IMAGE", help="The image.")]
LabelsFile = Annotated[
    str,
    typer.Option(
        "--labels",
        metavar="LABELS",
        help="Label image of its nuclei, as segment or another program writes it: 0 is background.",
    ),
]
MeasuredChannels = Annotated[
    list[str] | None,
    _channels(
        "Channel to measure, by name, or by number from 0; may be given more than once. Default: all.",
        rich_help_panel=_IMAGE,
    ),
]
Ring = Annotated[
    float | None,
    typer.Option(
        "--ring", metavar="UM", min=0, help="Measure cells, too: nuclei with a ring of this width, in um."
    ),
]
RingPx = Annotated[float | None, typer.Option("--ring-px", metavar="PX", min=0, help="The same in pixels.")]
Percentile = Annotated[
    float, typer.Option(min=0, max=100, help="Of the intensities, besides mean, median and sum.")
]
TableFile = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="Table: .csv, .parquet, or .h5ad for AnnData.")
]
ReplaceTable = Annotated[bool, typer.Option("--overwrite", help="Replace a table that is there.")]
RunFolder = Annotated[
    Path, typer.Option("--output", "-o", help="Folder of the run: log, checkpoint, model.", file_okay=False)
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Folder for images.csv, summary.json and pictures of the worst and best images.",
        file_okay=False,
    ),
]
ReplaceReport = Annotated[bool, typer.Option("--overwrite", help="Replace a report that is there.")]
ReplaceComparison = Annotated[
    bool,
    typer.Option("--overwrite", help="Begin anew: replace the comparison that is there, with its labels."),
]
ModelName = Annotated[str | None, typer.Option(help="Of the model.")]
Steps = Annotated[int | None, typer.Option(min=1, help="How long to train.")]
TrainDevice = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")]
Unlabelled = Annotated[
    Path | None, typer.Option("--unlabelled", file_okay=False, help="Folder of images that nobody annotated.")
]
TrainingRecipe = Annotated[
    Path | None,
    typer.Argument(
        metavar="RECIPE",
        help="JSON of training settings, like the recipe.json of another run; options override it.",
        dir_okay=False,
    ),
]
TrainData = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder of images and label images; or CSV: image, labels, modality, source, split. "
        "Default: the recipe's.",
    ),
]
StudentName = Annotated[
    str | None,
    typer.Option(
        "--student", help="Network to train anew: compact (as shipped), nano (preview), vit, large (teacher)."
    ),
]
Start = Annotated[
    str | None,
    typer.Option(
        help="Model to go on from, by name or folder; default, without RECIPE and --student: nucleus-student."
    ),
]
Pretrained = Annotated[
    bool | None,
    typer.Option(
        "--pretrained/--no-pretrained", help="Start the encoder of --student from its ImageNet weights."
    ),
]
TrainKind = Annotated[
    Trained | None, typer.Option("--kind", help="What is trained; default: what the recipe says, or student.")
]
LearningRate = Annotated[float | None, typer.Option(help="At its highest.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Crops a step.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes that cut crops.")]
Check = Annotated[
    bool, typer.Option("--check", help="Run each on its test input; exit status 1 if one fails.")
]
ModelPlace = Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="Name of a model, or its folder.")]
ExportFormat = Annotated[ModelFormat, typer.Option("--format", help="zip is what install takes.")]
ExportOutput = Annotated[
    Path, typer.Option("--output", "-o", help="File to write; for openvino a folder, which is made.")
]
Authors = Annotated[
    list[str] | None,
    typer.Option("--author", help="Who made the model, for bioimageio; may be given more than once."),
]
ReplaceExport = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")]
Package = Annotated[
    Path, typer.Argument(metavar="FOLDER|FILE.zip", help="A model package, as train and export write it.")
]
ReplaceModel = Annotated[bool, typer.Option("--overwrite", help="Replace an installed model of that name.")]
InstalledModel = Annotated[str, typer.Argument(metavar="NAME", help="Name of an installed model.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ReplaceJoined = Annotated[bool, typer.Option("--overwrite", help="Replace a model that is there.")]
Members = Annotated[list[str], typer.Argument(metavar="NAME|FOLDER...", help="Models to join.")]
ModelFolder = Annotated[
    Path, typer.Option("--output", "-o", help="Folder of the new model.", file_okay=False)
]
Flips = Annotated[bool, typer.Option("--flips/--no-flips", help="Look at the three mirror pictures, too.")]
ProjectFolder = Annotated[
    Path, typer.Option("--project", file_okay=False, help="Folder of a project, NAME.nucleus-kd.")
]
FirstModel = Annotated[
    str | None,
    typer.Option(
        "--model", help="Model to start from: a name, or its folder; default: the one that came along."
    ),
]
FinetuneFolder = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Folder of the run: data, log, checkpoint, model; default: the window's, in the project.",
        file_okay=False,
    ),
]
Keep = Annotated[
    float | None,
    typer.Option(help="Weight of what the old model says where nobody verified; 0 lets it forget."),
]
Blend = Annotated[
    float | None,
    typer.Option(help="Share of the learnt weights, the rest being the old ones; less forgets less."),
]
FinetuneRate = Annotated[
    float | None, typer.Option("--learning-rate", help="Size of a step; larger learns and forgets faster.")
]
EarlyStop = Annotated[int | None, typer.Option(min=1, help="Stop after so many checks without improvement.")]
Seed = Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Another seed, another order of crops.")]
Discard = Annotated[
    bool, typer.Option("--discard", help="Remove the run in OUTPUT, and do nothing else; versions stay.")
]
InstallIt = Annotated[bool, typer.Option("--install", help="Install the new model when it is done.")]
