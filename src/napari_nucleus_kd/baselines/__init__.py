"""Other tools to compare with, and to learn from: each in a process and an environment of its own."""

from napari_nucleus_kd.baselines.environments import (
    THREADS,
    TOOLS,
    Found,
    Tool,
    checked,
    environment_state,
    find,
    forget_checked,
    import_in,
    installed,
    note_checked,
    use,
)
from napari_nucleus_kd.baselines.making import install_steps, remove
from napari_nucleus_kd.baselines.weights import weight_files, weights_digest
from napari_nucleus_kd.baselines.worker import About, Worker

__all__ = [
    "THREADS",
    "TOOLS",
    "About",
    "Found",
    "Tool",
    "Worker",
    "checked",
    "environment_state",
    "find",
    "forget_checked",
    "import_in",
    "install_steps",
    "installed",
    "note_checked",
    "remove",
    "use",
    "weight_files",
    "weights_digest",
]
