"""A person at work whom test_retrain.py kills: a model learns from what is verified, each step is said."""

import sys
from pathlib import Path

import tifffile
from napari.components import ViewerModel
from qtpy.QtWidgets import QApplication

from napari_nucleus_kd import workspace
from napari_nucleus_kd.train.finetune_settings import FinetuneSettings
from napari_nucleus_kd.types import Modality
from napari_nucleus_kd.widgets import _kept
from napari_nucleus_kd.widgets._session import session_of
from napari_nucleus_kd.widgets.correct import CorrectWidget


def main(path, truth, model, settings):
    from killed_window import begin  # beside this script; pytest collects its doctests from elsewhere

    workspace.preferences_path = lambda: path.parent / "config" / "preferences.json"
    _kept.SOON_MS = 30
    _application = QApplication([])  # there as long as this name is
    viewer = ViewerModel()
    session = session_of(viewer)
    session.workspace.set_recipe(segmenter="classical", modality=Modality.FLUORESCENCE, diameter_px=18)
    widget = CorrectWidget(viewer)
    widget.show()

    _, wait = begin(viewer, widget.corrections, path, tifffile.imread(truth))
    wait(lambda: not session.keeping.kept.unsaved)
    run = session.retraining
    said = [None]

    def say():
        if run.progress is not None and run.progress.message == "training" and run.progress is not said[0]:
            said[0] = run.progress
            print(run.progress.done, flush=True)
        return not run.running

    run.start(str(model), FinetuneSettings.model_validate_json(settings))
    wait(say)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), sys.argv[4])
