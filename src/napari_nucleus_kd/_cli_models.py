"""What `nucleus-kd models list`, `show` and `remove` print and ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import TypeAdapter
from rich.markdown import Markdown
from rich.markup import escape
from rich.prompt import Confirm
from rich.table import Table

from napari_nucleus_kd._cli_info import show_facts
from napari_nucleus_kd._cli_show import metrics_table
from napari_nucleus_kd.errors import NucleusKDError, SettingsError
from napari_nucleus_kd.install import find_installed, remove_model
from napari_nucleus_kd.package import FILES, load_model, survey_models
from napari_nucleus_kd.versions import restore

if TYPE_CHECKING:
    from rich.console import Console

    from napari_nucleus_kd._cli_info import Facts
    from napari_nucleus_kd.package import Model, ModelSpec

OPTIONS = {"model": "--model", "adapter": "--mapping", "enhancer": "--enhance"}  # by role
_METRICS = TypeAdapter(dict[str, dict[str, list[float]]])


def _parameters(model: Model) -> str:
    return "unreadable" if model.parameters is None else f"{model.parameters / 1e6:.2f} M"


def _verified(model: Model) -> tuple[str, bool]:
    """Say whether a model gives its test output on this computer."""
    try:
        return f"gives its test output (differs by {model.verify():.1g})", True
    except NucleusKDError as error:
        return f"FAILED: {error}", False


def restore_version(name: str, console: Console) -> None:
    """Make a version the newest again, and say by which name it is found now."""
    model, newest = load_model(name), restore(name)
    is_new = newest.folder != model.folder
    said = f"{name} is back: --model {newest.spec.name}" if is_new else f"{name} is the newest version"
    console.print(f"{said} ({newest.folder})", soft_wrap=True, highlight=False, markup=False)


def show_models(console: Console, *, check: bool = False) -> bool:
    """Print a table of the models that are there, and below it those that cannot be used, with the reason.

    Parameters
    ----------
    check : run each model on its test input and compare with its test output.

    Returns
    -------
    Whether no model failed its test; a damaged one fails it.
    """
    models, damaged = survey_models()
    table = Table("model", "version", "parameters", "SHA-256", "give it as")
    for model in models:
        given = OPTIONS[model.role]
        table.add_row(model.spec.name, model.spec.version, _parameters(model), model.hash[:12], given)
    console.print(table)
    for model in models:
        card = model.folder / "card.md" if model.card else f"{model.folder} (without a card)"
        console.print(escape(f"{model.spec.name}: {card}"), soft_wrap=True, highlight=False)
    for folder, problem in damaged.items():
        console.print(f"[bold red]{escape(folder.name)}[/] cannot be used: {escape(problem)}", soft_wrap=True)
    if not check:
        return True
    sound = not damaged
    for model in models:
        verdict, right = _verified(model)
        console.print(f"{escape(model.spec.name)} {escape(verdict)}", soft_wrap=True, highlight=False)
        sound = sound and right
    return sound


def _facts(model: Model) -> Facts:
    spec, decode = model.spec, model.spec.decode.model_dump().items()
    decoding = [("decoding", ", ".join(f"{name} {value}" for name, value in decode))]
    size = sum((model.folder / name).stat().st_size for name in FILES if (model.folder / name).is_file())
    return [
        ("model", spec.name),
        ("version", spec.version),
        ("folder", str(model.folder)),
        ("architecture", ", ".join([spec.architecture, *(f"{k} {v}" for k, v in spec.options.items())])),
        ("parameters", _parameters(model)),
        ("size on disk", f"{size / 1e6:.2f} MB"),
        ("maps", ", ".join(spec.maps)),
        ("input", f"3 channels, height and width multiples of {spec.multiple_px} px"),
        *_sizes(spec),
        ("scaling", "percentiles {:g} and {:g}".format(*spec.percentiles)),
        *(decoding if model.role == "model" else []),
        ("licence", spec.licence or "not stated"),
        *(("data", line) for line in spec.data),
        ("parent", spec.parent or "none"),
        ("SHA-256", model.hash),
    ]


def _sizes(spec: ModelSpec) -> Facts:
    """Return how large nuclei may be, and to what size a student, which alone does it, brings them."""
    smallest, largest = spec.size_range
    ends = f"{smallest:g} to {largest:g} px"
    if not spec.rescales:
        return [("diameters", f"taken as they are; most that it learnt from had {ends}")]
    small = f"smaller ones enlarged to {spec.enlarge_to_px or smallest:g} px"
    return [
        ("diameters", f"{ends} as they are; {small}, larger ones shrunk to {largest:g} px"),
        ("trained at", f"{spec.diameter_px:g} px"),
    ]


def _printable(text: str) -> str:
    """Leave out control characters: a foreign card could steer the terminal with them."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")


def show_model(model: Model, console: Console) -> None:
    """Print all that a package says of its model: facts, metrics, card."""
    show_facts([(name, _printable(value)) for name, value in _facts(model)], console)
    try:
        metrics = metrics_table(_METRICS.validate_python(model.spec.metrics))
    except (ValueError, OverflowError, LookupError):  # a foreign package may measure otherwise
        metrics = None
    if metrics is not None and model.spec.metrics:
        console.print("", metrics)
    else:
        console.print(escape(_printable(f"metrics: {model.spec.metrics or 'none'}")), soft_wrap=True)
    console.print("", Markdown(_printable(model.card) or "No card."))


def remove_installed(name: str, console: Console, *, yes: bool) -> None:
    """Remove an installed model, after asking unless the answer is known.

    Raises
    ------
    SettingsError : nobody is there to answer. ModelError, WriteError : see install.remove_model.
    """
    folder = find_installed(name)
    question = f"Remove {escape(name)} ({escape(str(folder))})?"
    try:
        sure = yes or Confirm.ask(question, console=console, default=False)
    except EOFError as error:
        raise SettingsError("nobody answers here; add --yes to remove it without asking") from error
    if sure:
        console.print(escape(f"removed: {remove_model(name)}"), soft_wrap=True, highlight=False)
    else:
        console.print("Nothing was removed.")
