"""The command line, `nucleus-kd`: segment, panel, measure, compare, train, evaluate, models and others."""

# The commands import what they need themselves, so that --help and completion answer at once.
from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from napari_nucleus_kd import _cli_options as options
from napari_nucleus_kd.errors import (
    DeviceError,
    ModelError,
    NucleusKDError,
    SettingsError,
    UnknownSegmenterError,
)

FAILED, USAGE, INTERRUPTED = 1, 2, 130
_USAGE_ERRORS = (SettingsError, ModelError, UnknownSegmenterError, DeviceError)


class _Commands(TyperGroup):
    """Turns our errors into one message and a status; a traceback then always means a fault of ours."""

    def invoke(self, ctx: Any) -> Any:  # click's context; some versions of typer bring their own click
        try:
            return super().invoke(ctx)
        except NucleusKDError as error:
            Console(stderr=True).print(f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(USAGE if isinstance(error, _USAGE_ERRORS) else FAILED) from error
        except KeyboardInterrupt as error:
            Console(stderr=True).print(
                "Stopped. segment, train, distill, finetune and compare go on when given again."
            )
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    cls=_Commands,
    help="Find every nucleus in microscope images.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from napari_nucleus_kd import __version__

        typer.echo(f"nucleus-kd {__version__}")
        raise typer.Exit


@app.callback()
def _nucleus_kd(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Find every nucleus in microscope images."""


@app.command()
def segment(
    inputs: options.Inputs,
    output: options.Output,
    recipe: options.RecipeFile = None,
    refit: options.Refit = False,
    channel: options.ChannelNames = None,
    mapping: options.MappingName = None,
    channel_weight: options.ChannelWeights = None,
    stains: options.Stains = None,
    panel: options.PanelFile = None,
    percentiles: options.Percentiles = None,
    modality: options.ModalityOption = None,
    pixel_size: options.PixelSize = None,
    series: options.Series = 0,
    z: options.Plane = None,
    t: options.Time = 0,
    region: options.RegionOption = None,
    segmenter: options.Segmenter = None,
    weights: options.Weights = None,
    model: options.Model = None,
    device: options.Device = None,
    enhance: options.EnhancerName = None,
    polarity: options.PolarityOption = None,
    diameter: options.Diameter = None,
    diameter_um: options.DiameterUm = None,
    decode_by: options.DecodeBy = None,
    foreground: options.Foreground = None,
    split: options.Split = None,
    min_score: options.MinScore = None,
    min_area: options.MinArea = None,
    fill_holes: options.FillHoles = None,
    file_format: options.FileFormat = options.Format.TIFF,
    overwrite: options.Overwrite = False,
) -> None:
    """Segment images; writes NAME_labels, NAME_nuclei.csv, NAME_recipe.json and NAME_run.json for each.

    Results that are there and answer the same question are kept, so a broken run is resumed by giving the
    same command again.
    """
    from napari_nucleus_kd._cli_inputs import find_jobs
    from napari_nucleus_kd._cli_panel import said_by_panel
    from napari_nucleus_kd._cli_recipe import build_recipe, channel_keys, read_recipe, tell_of_refit
    from napari_nucleus_kd._cli_record import Plane
    from napari_nucleus_kd._cli_segment import Order, segment_all, settle_request, show_summary
    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.types import Region

    if diameter is not None and diameter_um is not None:
        raise SettingsError("--diameter and --diameter-um say the same; give one of them")
    given = {
        "segmenter": segmenter,
        "weights": weights,
        "model": model,
        "device": device,
        "modality": None if modality is None else options.MODALITIES[modality],
        "channels": channel_keys(channel),
        "mapping": mapping,
        "channel_weights": tuple(channel_weight) if channel_weight else None,
        "stains": None if stains is None else (stains[:3], stains[3:]),
        "pixel_size_um": pixel_size,
        "region": None if region is None else Region(*region),
        "diameter_px": diameter,
        "diameter_um": diameter_um,
        "percentiles": percentiles,
        "enhance": enhance,
        "polarity": None if polarity is None else polarity.value,
    }
    base = None if recipe is None else read_recipe(recipe)
    mapped = mapping or (base or Recipe()).mapping
    chosen, said = said_by_panel(panel, mapped, channel, channel_weight, percentiles)
    decode = {
        "by": None if decode_by is None else decode_by.value,
        "foreground": foreground,
        "split": split,
        "min_score": min_score,
        "min_area_px": min_area,
        "fill_holes": fill_holes,
    }
    jobs = find_jobs(inputs)
    request = settle_request(build_recipe(base, given | said, refit=refit), decode)
    console = Console()
    tell_of_refit(base, request, console)
    order = Order(output, file_format, overwrite, Plane(series=series, z=z, t=t), request, chosen)
    outcomes = segment_all(jobs, order, console)
    show_summary(outcomes, console)
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(FAILED)


@app.command()
def enhance(
    inputs: options.Inputs,
    output: options.Output,
    enhancer: options.Enhancer = None,
    recipe: options.RecipeFile = None,
    refit: options.Refit = False,
    polarity: options.PolarityOption = None,
    channel: options.ChannelNames = None,
    mapping: options.MappingName = None,
    channel_weight: options.ChannelWeights = None,
    stains: options.Stains = None,
    panel: options.PanelFile = None,
    percentiles: options.Percentiles = None,
    modality: options.ModalityOption = None,
    series: options.Series = 0,
    z: options.Plane = None,
    t: options.Time = 0,
    region: options.RegionOption = None,
    device: options.Device = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw every nucleus of images as it would be seen best; writes NAME_enhanced.ome.tif and its recipe.

    segment --enhance does the same before it segments; with --recipe of such a run, the picture is the one
    that was segmented. Results that are there and of the same settings are kept.
    """
    from napari_nucleus_kd._cli_enhance import enhance_all
    from napari_nucleus_kd._cli_inputs import find_jobs
    from napari_nucleus_kd._cli_panel import said_by_panel
    from napari_nucleus_kd._cli_recipe import build_recipe, channel_keys, read_recipe, tell_of_refit
    from napari_nucleus_kd._cli_record import Plane
    from napari_nucleus_kd.config import Recipe
    from napari_nucleus_kd.pipeline import ENHANCER
    from napari_nucleus_kd.types import Region

    base = None if recipe is None else read_recipe(recipe)
    named = None if base is None else base.enhance
    given = {
        "enhance": enhancer or (None if named else ENHANCER),
        "polarity": None if polarity is None else polarity.value,
        "channels": channel_keys(channel),
        "mapping": mapping,
        "channel_weights": tuple(channel_weight) if channel_weight else None,
        "stains": None if stains is None else (stains[:3], stains[3:]),
        "percentiles": percentiles,
        "modality": None if modality is None else options.MODALITIES[modality],
        "region": None if region is None else Region(*region),
        "device": device,
    }
    mapped = mapping or (base or Recipe()).mapping
    chosen, said = said_by_panel(panel, mapped, channel, channel_weight, percentiles)
    jobs, console, plane = find_jobs(inputs), Console(), Plane(series=series, z=z, t=t)
    request = build_recipe(base, given | said, refit=refit)
    tell_of_refit(base, request, console)
    if not enhance_all(jobs, request, chosen, plane, output, console, overwrite=overwrite):
        raise typer.Exit(FAILED)


@app.command()
def panel(
    image: options.PanelImage,
    output: options.PanelOutput,
    series: options.Series = 0,
    z: options.Plane = None,
    t: options.Time = 0,
    overwrite: options.ReplacePanel = False,
) -> None:
    """Suggest what each channel of an image is for, with the reason; writes the panel as JSON.

    Mend it in a text editor or in the window, and give it to segment --panel.
    """
    from napari_nucleus_kd._cli_panel import write_panel
    from napari_nucleus_kd.io import read

    write_panel(read(image, series=series, z=z, t=t), output, Console(), overwrite=overwrite)


@app.command()
def measure(
    image: options.MeasuredImage,
    labels: options.LabelsFile,
    output: options.TableFile,
    ring: options.Ring = None,
    ring_px: options.RingPx = None,
    percentile: options.Percentile = 95.0,
    channel: options.MeasuredChannels = None,
    pixel_size: options.PixelSize = None,
    series: options.Series = 0,
    z: options.Plane = None,
    t: options.Time = 0,
    region: options.RegionOption = None,
    overwrite: options.ReplaceTable = False,
) -> None:
    """Measure every nucleus, and with a ring every cell: area, shape, intensity of all channels.

    The labels have the size of the image, or of --region if only that was segmented.
    """
    from napari_nucleus_kd._cli_measure import Measurement, measure_image
    from napari_nucleus_kd._cli_recipe import channel_keys
    from napari_nucleus_kd._cli_record import Plane
    from napari_nucleus_kd.types import Region

    wanted = Measurement(
        plane=Plane(series=series, z=z, t=t),
        region=None if region is None else Region(*region),
        channels=channel_keys(channel),
        pixel_size_um=pixel_size,
        ring_um=ring,
        ring_px=ring_px,
        percentile=percentile,
    )
    measure_image(image, labels, wanted, output, overwrite=overwrite)


_models = typer.Typer(help="List, show, install, remove, restore, join and export models.")
app.add_typer(_models, name="models")


@_models.callback(invoke_without_command=True)
def models(ctx: typer.Context, check: options.Check = False) -> None:
    """List, show, install, remove, restore, join and export models; without a command: list."""
    if ctx.invoked_subcommand is None:
        models_list(check)
    elif check:
        raise SettingsError("--check belongs to list: nucleus-kd models list --check")


@_models.command("list")
def models_list(check: options.Check = False) -> None:
    """List the models that are there, and the damaged ones with the reason."""
    from napari_nucleus_kd._cli_models import show_models

    if not show_models(Console(), check=check):
        raise typer.Exit(FAILED)


@_models.command("show")
def models_show(name: options.ModelPlace) -> None:
    """Show all that is known of a model: size, settings, licence, data, metrics and card."""
    from napari_nucleus_kd._cli_models import show_model
    from napari_nucleus_kd.package import load_model

    show_model(load_model(name), Console())


@_models.command("install")
def models_install(source: options.Package, overwrite: options.ReplaceModel = False) -> None:
    """Check a model completely and copy it into your models folder; it is then known by its name."""
    from napari_nucleus_kd._cli_models import OPTIONS
    from napari_nucleus_kd.install import install_model

    model = install_model(source, overwrite=overwrite)
    Console().print(
        escape(f"installed: {OPTIONS[model.role]} {model.spec.name} ({model.folder})"),
        soft_wrap=True,
        highlight=False,
    )


@_models.command("remove")
def models_remove(name: options.InstalledModel, yes: options.Yes = False) -> None:
    """Remove an installed model; those that came with the program stay."""
    from napari_nucleus_kd._cli_models import remove_installed

    remove_installed(name, Console(), yes=yes)


@_models.command("restore")
def models_restore(name: options.InstalledModel) -> None:
    """Make an older version of a fine-tuned model the newest again; those after it stay."""
    from napari_nucleus_kd._cli_models import restore_version

    restore_version(name, Console())


@_models.command("join")
def models_join(
    members: options.Members,
    output: options.ModelFolder,
    name: options.ModelName = None,
    flips: options.Flips = True,
    overwrite: options.ReplaceJoined = False,
) -> None:
    """Make one model of several: the mean of what they say; slower and a little better, so a teacher."""
    from napari_nucleus_kd.join import join_models
    from napari_nucleus_kd.package import load_model

    models = [load_model(member) for member in members]
    name = name or output.resolve().name
    model = join_models(models, name, output, flips=flips, overwrite=overwrite)
    Console().print(f"model: {model.folder}", soft_wrap=True)


@_models.command("export")
def models_export(
    name: options.ModelPlace,
    output: options.ExportOutput,
    file_format: options.ExportFormat,
    author: options.Authors = None,
    overwrite: options.ReplaceExport = False,
) -> None:
    """Write a model for another computer or program; what was written is run and compared first."""
    from napari_nucleus_kd._cli_show import show
    from napari_nucleus_kd.export import export_steps
    from napari_nucleus_kd.package import load_model

    console = Console()
    steps = export_steps(load_model(name), output, file_format, authors=author or (), overwrite=overwrite)
    console.print(escape(f"exported: {show(steps, console)}"), soft_wrap=True, highlight=False)


_baselines = typer.Typer(
    help="Cellpose and StarDist, each in an environment of its own: to compare with, and to learn from.",
    no_args_is_help=True,
)
app.add_typer(_baselines, name="baselines")


@_baselines.command("list")
def baselines_list(
    check: Annotated[
        bool, typer.Option("--check", help="Try each on a sample image, with the weights of its last check.")
    ] = False,
) -> None:
    """List the tools, where they are installed, how to get those that are not, and what they work with."""
    from napari_nucleus_kd._cli_baselines import show_baselines

    if not show_baselines(Console(), check=check):
        raise typer.Exit(1)


@_baselines.command("install")
def baselines_install(
    name: options.ToolName, python: options.ToolPython = None, extra: options.ToolExtra = None
) -> None:
    """Make an environment for a tool and install it there; downloads hundreds of megabytes."""
    from napari_nucleus_kd._cli_baselines import install_tool

    install_tool(name, python, extra or [], Console())


@_baselines.command("use")
def baselines_use(name: options.ToolName, python: options.ToolPlace) -> None:
    """Take a tool from an environment of yours, where it is installed already."""
    from napari_nucleus_kd._cli_baselines import use_environment

    use_environment(name, python, Console())


@_baselines.command("check")
def baselines_check(
    name: options.ToolName, weights: options.ToolWeights, device: options.Device = None
) -> None:
    """Segment a sample image with a tool and weights, to see that they work."""
    from napari_nucleus_kd._cli_baselines import check_tool

    check_tool(name, weights, device, Console())


@_baselines.command("remove")
def baselines_remove(name: options.ToolName) -> None:
    """Remove the environment that was made for a tool; forget one of yours, which stays as it is."""
    from napari_nucleus_kd._cli_baselines import remove_tool

    remove_tool(name, Console())


@app.command()
def info(
    file: Annotated[str | None, typer.Argument(metavar="[FILE]", help="An image.")] = None,
) -> None:
    """Say what this computer runs networks on, or what is read from an image."""
    from napari_nucleus_kd._cli_info import computer_facts, file_facts, show_facts

    show_facts(computer_facts() if file is None else file_facts(file), Console())


@app.command()
def samples(
    output: options.SamplesOutput,
    names: options.SampleNames = None,
    overwrite: options.ReplaceSamples = False,
) -> None:
    """Write the sample images, with their labels where these are known, to try the other commands on."""
    from napari_nucleus_kd._cli_samples import write_samples

    write_samples(names or (), output, Console(), overwrite=overwrite)


@app.command()
def train(
    output: options.RunFolder,
    recipe: options.TrainingRecipe = None,
    data: options.TrainData = None,
    start: options.Start = None,
    student: options.StudentName = None,
    pretrained: options.Pretrained = None,
    channel: options.DataChannels = None,
    name: options.ModelName = None,
    steps: options.Steps = None,
    learning_rate: options.LearningRate = None,
    batch: options.Batch = None,
    seed: options.Seed = None,
    workers: options.Workers = None,
    device: options.TrainDevice = None,
    kind: options.TrainKind = None,
) -> None:
    """Train a student on annotated images; the result is a model package in OUTPUT.

    --kind enhancer trains a network that draws nuclei as they would be seen best, and three-classes the one
    that segments such pictures. An adapter is trained by a student's recipe that says so.

    Without a recipe it goes on from the shipped model, for 2,000 steps; with --student it begins anew.
    A run that was stopped goes on from where it was when the same command is given again; with --steps at
    most those done, it ends there with the best model so far.
    """
    from napari_nucleus_kd._cli_recipe import channel_keys
    from napari_nucleus_kd._cli_train import kind_of, read_settings, train_enhancing, train_model
    from napari_nucleus_kd.train.enhancing_settings import read_enhancing

    given: dict[str, Any] = {
        "dataset": data and data.resolve(),
        "channels": channel_keys(channel),
        "name": name,
        "steps": steps,
        "learning_rate": learning_rate,
        "seed": seed,
        "workers": workers,
        "device": device,
    }
    of_students: dict[str, Any] = {"start": start, "student": student, "pretrained": pretrained}
    kind = kind or kind_of(recipe)
    if kind is options.Trained.student:
        train_model(read_settings(recipe, batch=batch, **given, **of_students), output)
        return
    if unfit := [f"--{name}" for name, value in of_students.items() if value is not None]:
        raise SettingsError(f"--kind {kind}: {', '.join(unfit)} is for students; leave it out")
    train_enhancing(read_enhancing(recipe, given | {"kind": str(kind)}, batch), output)


@app.command()
def distill(
    output: options.RunFolder,
    teacher: Annotated[
        list[str],
        typer.Option(
            help="Model by name or folder, segmenter:NAME (segmenter:cellpose:WEIGHTS), or labels:FOLDER "
            "(label images of the unlabelled ones); several times: their mean."
        ),
    ],
    recipe: options.TrainingRecipe = None,
    data: options.TrainData = None,
    unlabelled: options.Unlabelled = None,
    start: options.Start = None,
    student: options.StudentName = None,
    pretrained: options.Pretrained = None,
    channel: options.DataChannels = None,
    name: options.ModelName = None,
    steps: options.Steps = None,
    learning_rate: options.LearningRate = None,
    batch: options.Batch = None,
    seed: options.Seed = None,
    workers: options.Workers = None,
    device: options.TrainDevice = None,
) -> None:
    """Train a student on annotated images and on what teachers say of these and of others."""
    from napari_nucleus_kd._cli_recipe import channel_keys
    from napari_nucleus_kd._cli_train import read_settings, train_model

    settings = read_settings(
        recipe,
        teachers=teacher,
        dataset=data and data.resolve(),
        unlabelled=unlabelled and unlabelled.resolve(),
        start=start,
        student=student,
        pretrained=pretrained,
        channels=channel_keys(channel),
        name=name,
        steps=steps,
        learning_rate=learning_rate,
        batch=batch,
        seed=seed,
        workers=workers,
        device=device,
    )
    train_model(settings, output)


@app.command()
def finetune(
    project: options.ProjectFolder,
    model: options.FirstModel = None,
    output: options.FinetuneFolder = None,
    steps: options.Steps = None,
    learning_rate: options.FinetuneRate = None,
    keep: options.Keep = None,
    blend: options.Blend = None,
    batch: options.Batch = None,
    early_stop: options.EarlyStop = None,
    seed: options.Seed = None,
    device: options.TrainDevice = None,
    install: options.InstallIt = False,
    discard: options.Discard = False,
) -> None:
    """Fine-tune a model on what is verified in a project, and compare it with the one before.

    Given again, a run that was stopped goes on, with the model, the settings and what was verified when it
    began. To learn from more: --discard, then the same again.
    """
    from napari_nucleus_kd._cli_finetune import discard_run, finetune_model, read_settings
    from napari_nucleus_kd.train.finetune_folder import run_folder

    if install and discard:
        raise SettingsError("--install keeps a run and --discard removes it; give one of them")
    run = output or run_folder(project)
    if discard:
        discard_run(run)
        return
    settings = read_settings(
        run,
        steps=steps,
        learning_rate=learning_rate,
        keep=keep,
        blend=blend,
        batch=batch,
        early_stop=early_stop,
        seed=seed,
        device=device,
    )
    finetune_model(project, model, run, settings, install=install)


@app.command()
def evaluate(
    data: options.Index,
    split: Annotated[str, typer.Option(help="Rows of the index to judge on.")] = "val",
    segmenter: options.Segmenter = None,
    weights: options.Weights = None,
    model: options.Model = None,
    device: options.Device = None,
    channel: options.DataChannels = None,
    enhance: options.EnhancerName = None,
    polarity: options.PolarityOption = None,
    true_diameter: Annotated[
        bool, typer.Option("--true-diameter", help="Tell the segmenter the true nucleus size.")
    ] = False,
    output: options.Report = None,
    overwrite: options.ReplaceReport = False,
) -> None:
    """Segment annotated images and compare: PQ, AP, AJI and Dice with 95% intervals."""
    from napari_nucleus_kd._cli_evaluate import evaluate_model
    from napari_nucleus_kd._cli_recipe import build_recipe, channel_keys

    if data.is_dir() and split != "val":
        raise SettingsError(f"{data} is a folder, and has no splits; leave --split out, or give a CSV index")
    given = {
        "segmenter": segmenter,
        "weights": weights,
        "model": model,
        "device": device,
        "channels": channel_keys(channel),
        "enhance": enhance,
        "polarity": None if polarity is None else polarity.value,
    }
    recipe = build_recipe(None, given)
    evaluate_model(data, split, recipe, output, true_diameter=true_diameter, overwrite=overwrite)


@app.command()
def compare(
    output: options.Output,
    inputs: options.CompareInputs = None,
    data: options.CompareData = None,
    segmenter: options.Contestants = None,
    split: Annotated[str, typer.Option(help="Rows of the index to judge on.")] = "val",
    device: options.Device = None,
    threads: options.Threads = None,
    channel: options.DataChannels = None,
    memory: Annotated[
        bool,
        typer.Option(
            help="Measure the memory that each needs for the largest image, in a process of its own."
        ),
    ] = True,
    overwrite: options.ReplaceComparison = False,
) -> None:
    """Let several segmenters work on the same images; who is right where, how fast, how sure that is.

    With labels (--data): PQ, AJI, AP and more with intervals and a test; without (INPUT): who agrees with
    whom, and where they do not. Writes report.html, comparison.csv, images.csv, comparison.json and all
    labels. What is there already is kept, so a broken run goes on when it is given again; a comparison of
    other images or segmenters is replaced with --overwrite only.
    """
    from napari_nucleus_kd._cli_compare import compare_all
    from napari_nucleus_kd._cli_recipe import channel_keys
    from napari_nucleus_kd.compare.computer import limited_threads

    if (data is None) == (not inputs):
        raise SettingsError("give either --data (images with labels) or images without labels, not both")
    settings = {"device": device, "channels": channel_keys(channel)}
    named = segmenter or ["student", "classical"]
    with limited_threads(threads):
        complete = compare_all(data, split, inputs or [], named, settings, output, memory, overwrite)
    if not complete:
        raise typer.Exit(FAILED)


def main() -> None:
    """Run the command line; the program `nucleus-kd`."""
    sys.exit(app())


if __name__ == "__main__":
    main()
