"""What is in hand: image, settings, result and the job that runs; observed by every widget, knows no GUI."""

from __future__ import annotations

import json
import operator
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import platformdirs
from psygnal import SignalGroupDescriptor
from pydantic import Field, ValidationError

from napari_nucleus_kd.channels import nuclear_channels
from napari_nucleus_kd.config import Recipe, Settings, recipe_from
from napari_nucleus_kd.errors import NucleusKDError, WriteError
from napari_nucleus_kd.io.atomic import write_text
from napari_nucleus_kd.panel import Panel, check_panel, has_own_names, image_names, taken_over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_nucleus_kd.config import DecodeSettings
    from napari_nucleus_kd.panel import Suggestion
    from napari_nucleus_kd.pipeline import Result
    from napari_nucleus_kd.types import Image, Modality, Progress

MAX_RECENT = 10
MAX_PANELS = 20
_NEWEST_SHARE = 0.5  # of a slower run in the remembered speed


class Preferences(Settings):
    """What is remembered between sessions.

    Thresholds and diameter are not: they belong to one image or one model. Panels are, for images whose
    channels have the same names.
    """

    recent: tuple[str, ...] = Field((), description="Files opened before, newest first")
    segmenter: str = Recipe().segmenter
    weights: str | None = None
    model: str = Recipe().model
    device: str = Recipe().device
    tile_px: int = Field(Recipe().tile_px, ge=128)
    enhance: str | None = None
    whole_image: bool = False
    probability: bool = False
    outlines: bool = Field(True, description="Nuclei are drawn as outlines, not filled")
    panels: tuple[Panel, ...] = Field((), description="Panels that a person chose, newest first")
    seconds_per_megapixel: dict[str, float] = Field(
        default_factory=dict, description="Measured speed of each segmenter, model and device"
    )


def preferences_path() -> Path:
    """Return where the preferences of this user are kept."""
    return Path(platformdirs.user_config_dir("napari-nucleus-kd", appauthor=False)) / "preferences.json"


def load_preferences(path: Path) -> Preferences:
    """Read preferences; a missing, damaged or outdated file gives the defaults."""
    try:
        return Preferences.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        # Preferences are a comfort: a broken file must never keep the window from opening.
        return Preferences()


def save_preferences(preferences: Preferences, path: Path) -> None:
    """Write preferences beside `path`, then move them there; an unwritable folder is let pass."""
    with suppress(OSError, WriteError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, preferences.model_dump_json(indent=1))


@dataclass(frozen=True, slots=True)
class Activity:
    """The job that runs now.

    Attributes
    ----------
    step : the step whose job it is, "open" or "segment".
    title : what is being done, for a person.
    progress : the newest report; None before the first.
    started : `time.monotonic()` when what the progress counts began, in seconds.
    reported : the same of the newest report.
    stopping : True once cancelling was asked for.
    following : what will be done after it, for a person; "" if nothing waits.
    """

    step: str
    title: str
    progress: Progress | None = None
    started: float = field(default_factory=time.monotonic)
    reported: float | None = None
    stopping: bool = False
    following: str = ""

    def after(self, progress: Progress) -> Activity:
        """Return the activity after a report; what counts anew began with the report before."""
        former, began = self.progress, self.started
        if former is not None and (former.total != progress.total or former.done > progress.done):
            began = self.started if self.reported is None else self.reported
        return replace(self, progress=progress, started=began, reported=time.monotonic())

    def seconds_left(self, now: float | None = None) -> float | None:
        """Return the time left in seconds from the work done so far; None while it is unknown."""
        if self.progress is None or not 0 < self.progress.done <= self.progress.total:
            return None
        spent = (time.monotonic() if now is None else now) - self.started
        return spent * (self.progress.total - self.progress.done) / self.progress.done


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that went wrong, as it stands in a widget.

    Attributes
    ----------
    step : the step that failed, for example "open" or "segment".
    text : what happened, the rule and the remedy, for a person.
    details : the traceback, folded in the widget.
    """

    step: str
    text: str
    details: str = ""

    @classmethod
    def from_error(cls, step: str, error: BaseException, details: str = "") -> Problem:
        """Describe an error: ours speak for themselves, others are faults to report."""
        if isinstance(error, NucleusKDError):
            return cls(step, str(error), details)
        if isinstance(error, MemoryError):
            return cls(step, "The computer has too little free memory; choose a smaller region.", details)
        text = (
            f"This should not have happened: {type(error).__name__}: {error}. "
            "Please try again; if it comes back, report the details below to the developers."
        )
        return cls(step, text, details)


def _same_recipe(one: Recipe, other: Recipe) -> bool:
    return one == other and one.model_fields_set == other.model_fields_set


@dataclass
class Workspace:
    """The state that all widgets of one viewer share; each change of a field emits its event.

    Attributes
    ----------
    image : the image in hand, None if there is none.
    suggestion : the modality that its pixels suggest and why; None until it is known.
    recipe : the settings chosen by the person for the next run (not resolved).
    panel : what the channels of the image are for; None until it is known, and of a colour picture. Its
        nuclear channels are those of the recipe.
    suggested : the panel that names and pixels suggest, and why; None until it is known.
    guessed : the nuclear channel was judged by the pixels alone, and no person has confirmed it.
    whole_image : run on the whole image, not only on what is seen.
    probability : also show the probability of each pixel to be nucleus.
    result : the newest result; None before the first and after another image was chosen.
    outcome : the newest result in words.
    activity : the job that runs now, None when idle.
    problem : what went wrong last, None when nothing did.
    preferences : what is remembered between sessions.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor(
        # Images and results hold arrays, whose == is no truth value; which settings were set matters too.
        equality_operators={"image": operator.is_, "result": operator.is_, "recipe": _same_recipe}
    )

    image: Image | None = None
    suggestion: tuple[Modality, str] | None = None
    recipe: Recipe = field(default_factory=Recipe)
    panel: Panel | None = None
    suggested: Suggestion | None = None
    guessed: bool = False
    whole_image: bool = False
    probability: bool = False
    result: Result | None = None
    outcome: str = ""
    activity: Activity | None = None
    problem: Problem | None = None
    preferences: Preferences = field(default_factory=Preferences)

    @classmethod
    def remembered(cls, path: Path | None = None) -> Workspace:
        """Start with the settings of the last session, and write them when they change."""
        where = preferences_path() if path is None else path
        known = load_preferences(where)
        workspace = cls(
            recipe=Recipe(
                segmenter=known.segmenter,
                weights=known.weights,
                model=known.model,
                device=known.device,
                tile_px=known.tile_px,
                enhance=known.enhance,
            ),
            whole_image=known.whole_image,
            probability=known.probability,
            preferences=known,
        )
        workspace.events.preferences.connect(lambda new: save_preferences(new, where))
        return workspace

    def set_recipe(self, **changes: object) -> None:
        """Change settings of the next run by their Recipe names; None gives a setting back to its default.

        Settings that nobody set stay unset: only then does a run take the model's own thresholds.

        Raises
        ------
        SettingsError if a value is out of its range.
        """
        self._change_recipe(changes)
        if "channels" in changes and self.panel is not None and self.suggested is not None:
            nuclear = _indices(self.recipe.channels, self.panel.names)
            self.guessed = False
            self.panel = self.panel.with_nuclear(nuclear, self.suggested.panel)

    def _change_recipe(self, changes: dict[str, object]) -> None:
        values = {name: getattr(self.recipe, name) for name in self.recipe.model_fields_set}
        for name, belonging in _BELONG.items():
            if name in changes and self._told(name, changes[name]) != self._told(name, values.get(name)):
                values |= dict.fromkeys(belonging)
        values |= changes
        self.recipe = recipe_from({n: value for n, value in values.items() if value is not None})

    def _told(self, name: str, value: object) -> object:
        """Return what a setting comes to: channels may be said by name, by number, or not at all."""
        if name == "channels" and self.panel is not None:
            return _indices(cast("Sequence[int | str] | None", value), self.panel.names)
        return value

    def chosen_decode(self) -> DecodeSettings | None:
        """Return the thresholds that a person set; None leaves them to the model."""
        return self.recipe.decode if "decode" in self.recipe.model_fields_set else None

    def take(self, image: Image | None) -> None:
        """Take another image in hand; what belonged to the former one is let go."""
        keep_um = self.recipe.diameter_um if image is not None and image.pixel_size_um else None
        is_alike = image is not None and self.image is not None and image.rgb == self.image.rgb
        self.result = None
        self.outcome = ""
        self.suggestion = None
        self.suggested = self.panel = None
        self.guessed = False
        self.set_recipe(
            channels=None,
            percentiles=None,
            modality=None,
            pixel_size_um=None,
            diameter_px=None,
            diameter_um=keep_um,
            mapping=self.recipe.mapping if is_alike else None,
            polarity=self.recipe.polarity if is_alike else None,
            channel_weights=None,
            stains=None,
        )
        self.image = image

    def set_panel(self, panel: Panel) -> None:
        """Take the panel that a person chose for the image in hand, and remember it.

        Parameters
        ----------
        panel : of the channels of the image, in their order.
        """
        self.panel, self.guessed = panel, False
        # An empty choice stays one: a run then says that no channel is chosen.
        self._change_recipe({"channels": panel.nuclear, "percentiles": panel.percentiles})
        if has_own_names(panel.names):
            known = (other for other in self.preferences.panels if set(other.names) != set(panel.names))
            self.preferences = self.preferences.model_copy(update={"panels": (panel, *known)[:MAX_PANELS]})

    def take_suggested(self, suggested: Suggestion) -> None:
        """Take the suggested panel of the image in hand, or the remembered one of such channels.

        Nuclear channels that were chosen meanwhile stay chosen.
        """
        panel = suggested.panel if (known := self.remembered_panel()) is None else known
        self.suggested = suggested
        if self.recipe.channels is not None:
            panel = panel.with_nuclear(_indices(self.recipe.channels, panel.names), suggested.panel)
        elif panel.nuclear != _indices(None, panel.names):
            self._change_recipe({"channels": panel.nuclear})
            self.guessed = known is None and bool(suggested.question)
        if panel.percentiles is not None:
            self._change_recipe({"percentiles": panel.percentiles})
        self.panel = panel

    def remembered_panel(self) -> Panel | None:
        """Return the panel that was last chosen for channels of the same names, in the image's order."""
        image = self.image
        if image is None or not has_own_names(image_names(image)):
            return None
        for panel in self.preferences.panels:
            differences = check_panel(panel, image)
            if differences.fits and not differences.additional:
                return taken_over(panel, Panel.unnamed(image_names(image)))
        return None

    def remember_run(self, megapixels: float, seconds: float) -> None:
        """Note the settings of a finished run and its speed, for the next estimate.

        Parameters
        ----------
        seconds : without what happens only once, such as opening the model.
        """
        key, recipe = speed_key(self.recipe), self.recipe
        speeds = dict(self.preferences.seconds_per_megapixel)
        measured = seconds / max(megapixels, 1e-3)
        # A first run may hold compilation, so a faster one is believed at once, a slower one in part.
        known = min(measured, speeds.get(key, measured))
        speeds[key] = known + _NEWEST_SHARE * (measured - known)
        self.preferences = self.preferences.model_copy(
            update={
                "segmenter": recipe.segmenter,
                "weights": recipe.weights,
                "model": recipe.model,
                "device": recipe.device,
                "tile_px": recipe.tile_px,
                "enhance": recipe.enhance,
                "whole_image": self.whole_image,
                "probability": self.probability,
                "seconds_per_megapixel": speeds,
            }
        )

    def remember_outlines(self, outlines: bool) -> None:
        """Note how a person wants nuclei drawn."""
        self.preferences = self.preferences.model_copy(update={"outlines": outlines})

    def remember_file(self, path: Path) -> None:
        """Put a file on top of the recent ones."""
        name = str(path)
        others = (known for known in self.preferences.recent if known != name)
        self.preferences = self.preferences.model_copy(update={"recent": (name, *others)[:MAX_RECENT]})

    def report(self, progress: Progress) -> None:
        """Note the progress of the running job."""
        if self.activity is not None:
            self.activity = self.activity.after(progress)


_BELONG = {  # for these alone
    "channels": ("channel_weights",),
    "mapping": ("channel_weights", "stains"),
    "enhance": ("enhance_hash",),
}


def _indices(channels: Sequence[int | str] | None, names: Sequence[str]) -> tuple[int, ...]:
    """Return which channels a recipe means; None is the only one, or those named like a nuclear stain."""
    if channels is None:
        return (0,) if len(names) == 1 else nuclear_channels(names)
    folded = [name.casefold() for name in names]
    wanted = {c if isinstance(c, int) else c.casefold() for c in channels}
    return tuple(i for i, name in enumerate(folded) if i in wanted or name in wanted)


def speed_key(recipe: Recipe) -> str:
    """Return the name under which the speed of such runs is remembered."""
    parts: tuple[str, ...] = (recipe.segmenter, recipe.weights or recipe.model, recipe.device)
    if recipe.segmenter == "classical":
        parts = (recipe.segmenter,)  # it has no model and one device
    return "/".join(parts if recipe.enhance is None else (*parts, "enhanced"))
