"""What is verified and kept, in the Correct widget: boxes to mark, and the project beside the image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QFileDialog,
    QInputDialog,
    QMessageBox,
    QVBoxLayout,
    QWidget,
)

from napari_nucleus_kd.errors import EditError
from napari_nucleus_kd.widgets import _words
from napari_nucleus_kd.widgets._parts import (
    PROBLEM_STYLE,
    SMALL_STYLE,
    ProblemBox,
    StepWidget,
    WordsLabel,
    button,
    row,
)
from napari_nucleus_kd.widgets._taking_in import STEP
from napari_nucleus_kd.widgets._verified import MARGIN_PX

if TYPE_CHECKING:
    from qtpy.QtWidgets import QPushButton

    from napari_nucleus_kd.widgets._kept import Kept


class KeepPanel(QWidget):
    """Says what is verified and when it was saved, and offers what can be done about it.

    Parameters
    ----------
    owner : the widget it stands in.
    marks : its buttons for boxes.
    """

    def __init__(self, owner: StepWidget, marks: list[QPushButton]) -> None:
        super().__init__()
        self._session, self._keeping = owner.session, owner.session.keeping
        self.verified = WordsLabel()
        self.verified.setToolTip(
            "Only what is verified is learnt from. Mark it with a box, paint it with the brush in the\n"
            "layer “… verified”, or accept nuclei in a review: each is marked together with\n"
            f"{MARGIN_PX} px of background around it"
        )
        self.state = WordsLabel()
        self.problem = ProblemBox(owner, STEP)
        self.unsaved = WordsLabel()
        self.unsaved.setObjectName("problem")
        self.unsaved.setStyleSheet(PROBLEM_STYLE)
        self.keep = button(
            "Keep",
            "Save the nuclei and what is verified in a project beside the image, now and after each change",
            self._on_keep,
            style=SMALL_STYLE,
        )
        self.take_in = button(
            "Take in",
            "Put these nuclei in the place of those that are kept; what you verified or corrected stays",
            self._keeping.taking_in.start,
            style=SMALL_STYLE,
        )
        self.again = button(
            "Open again",
            "Read the project of this image once more",
            self._keeping.opening.look_again,
            style=SMALL_STYLE,
        )
        self.open = button(
            "Open a project…",
            "Choose a folder *.nucleus-kd, and open its image with what was kept of it",
            self._on_open,
            style=SMALL_STYLE,
        )
        self.point = button(
            "Point to the image…",
            "Say where the image of this project is now",
            self._on_point,
            style=SMALL_STYLE,
        )
        self.aside = button(
            "Go on without it",
            "Set the damaged file, and those after it, aside in the project, and save what you see.\n"
            "Nothing is deleted",
            self._keeping.set_damaged_aside,
            style=SMALL_STYLE,
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.marks = row(*marks)
        layout.addWidget(self.marks)
        for part in (self.verified, self.state, row(self.keep, self.take_in, self.again, self.open)):
            layout.addWidget(part)
        layout.addWidget(self.unsaved)
        layout.addWidget(self.problem)
        layout.addWidget(self.aside)
        layout.addWidget(self.point)
        owner.follow(self._keeping.changed, self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show how things stand."""
        keeping, kept = self._keeping, self._keeping.kept_in_correct
        image, in_hand = self._session.workspace.image, self._keeping.kept
        self.marks.setVisible(image is not None)
        self.aside.setVisible(kept is not None and kept.project.writable and bool(kept.image.damage))
        self.point.setVisible(keeping.projects.lost is not None)
        self.open.setVisible(in_hand is None and not keeping.doing)
        counted = "" if kept is None else _words.verified(kept.counted)
        self.verified.setText(f"Verified: {counted}." if counted else "")
        self.verified.setVisible(bool(counted))
        self.state.setText(self._state(kept))
        problem = "" if kept is None else kept.problem
        self.unsaved.setText(f"Not saved, will be tried again: {problem}" if problem else "")
        self.unsaved.setVisible(bool(problem))
        idle = not keeping.doing
        labels = self._session.corrections.layer is not None
        self.keep.setVisible(kept is None and idle and not keeping.can_open_again)
        part, file = keeping.needs_part(), keeping.needs_file()
        self.keep.setText("Keep this part in a file…" if part else "Keep in a file…" if file else "Keep")
        self.keep.setEnabled(labels)
        self.take_in.setVisible(idle and kept is not None and not kept.refusal and keeping.is_other_layer)
        self.again.setVisible(
            keeping.can_open_again or (in_hand is not None and not in_hand.project.writable)
        )

    def _state(self, kept: Kept | None) -> str:
        keeping = self._keeping
        if keeping.doing:
            return keeping.doing
        if kept is None and self._session.corrections.layer is None:
            return keeping.note
        if kept is None:
            where = " The image is in no file yet; press “Keep in a file…”." if keeping.needs_file() else ""
            if keeping.needs_part():
                where = (
                    " The image is too large to be kept as a whole; “Keep this part in a file…” makes these "
                    "nuclei and the pixels under them an image of their own, which can be verified and "
                    "learnt from."
                )
            return keeping.note or f"These corrections are in memory only.{where}"
        if kept.refusal:
            return f"{keeping.note}\nOnly to look at: {kept.refusal}.".strip()
        other = "The nuclei that are selected are not kept. " if keeping.is_other_layer else ""
        saved = "" if kept.saved is None else f"Saved {kept.saved:%H:%M:%S} in {kept.folder_name}."
        if kept.unsaved:
            saved = f"Saving soon in {kept.folder_name}…" if kept.saved is None else f"{saved} Changed since."
        return "\n".join(part for part in (keeping.note, other + saved) if part)

    def _on_keep(self) -> None:
        keeping = self._keeping
        image = keeping.image_to_keep
        name = "image" if image is None else Path(image.name).name.partition(".")[0]
        if keeping.needs_part():
            try:
                *_, part = keeping.part_in_hand()
            except EditError as error:
                keeping.complain(str(error))
                return
            folder = Path() if image is None or image.source is None else image.source.parent
            start = str(folder / f"{name}_y{part.y0}_x{part.x0}.ome.tif")
            path = self._ask_file("Where should this part of the image go?", start)
            if path is not None:
                keeping.keep_part(path)
        elif keeping.needs_file():
            path = self._ask_file("The image is in no file yet: where should it go?", f"{name}.ome.tif")
            if path is not None:
                keeping.keep(save_as=path)
        else:
            keeping.keep()

    def _ask_file(self, title: str, start: str) -> Path | None:
        """Ask where an OME-TIFF is to be written; None if nowhere."""
        chosen, _ = QFileDialog.getSaveFileName(self, title, start, "OME-TIFF (*.ome.tif)")
        if not chosen:
            return None
        path = Path(chosen)
        if path.name.lower().endswith((".ome.tif", ".ome.tiff")):
            return path
        path = path.with_name(f"{path.name}.ome.tif")
        # The dialog asked about another name.
        return path if not path.exists() or self._may_replace(path) else None

    def _may_replace(self, path: Path) -> bool:
        found = QMessageBox.question(self, "Replace it?", f"{path.name} is there already. Replace it?")
        return bool(found == QMessageBox.StandardButton.Yes)

    def _on_open(self) -> None:
        image = self._session.workspace.image
        start = "" if image is None or image.source is None else str(image.source.parent)
        folder = QFileDialog.getExistingDirectory(self, "Which project (*.nucleus-kd)?", start)
        if folder:
            self._keeping.projects.choose(Path(folder), self._ask_image, self.refresh)

    def _ask_image(self, names: list[str]) -> int | None:
        name, chosen = QInputDialog.getItem(self, "Images of this project", "Open", names, 0, False)
        return names.index(name) if chosen else None

    def _on_point(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Where is the image now?")
        if name:
            self._keeping.projects.point_to(Path(name), self.refresh)
