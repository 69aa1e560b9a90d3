"""Errors a person may see: each message names the thing, the rule it broke and the remedy."""


class NucleusKDError(Exception):
    """Base of every error that this package raises on purpose; its text is meant for people."""


def told(error: Exception, without_memory: str = "not enough memory") -> str:
    """Say why one of many images failed: whatever a library raises for it must not end the others."""
    if isinstance(error, NucleusKDError):
        return str(error)
    if isinstance(error, PermissionError):
        return f"{error.filename or 'a file'}: permission denied"
    if isinstance(error, MemoryError):
        return without_memory
    return f"unexpected {type(error).__name__}: {error}; please report it"


class ReadError(NucleusKDError):
    """A file cannot be read as an image."""


class WriteError(NucleusKDError):
    """A result cannot be written."""


class SettingsError(NucleusKDError, ValueError):
    """A setting, channel or recipe does not fit."""


class LabelsError(NucleusKDError, ValueError):
    """A label image is not a 2-D integer array."""


class EditError(NucleusKDError):
    """A correction cannot be made there."""


class ProjectError(NucleusKDError):
    """A project is missing, damaged, held by another window, or does not fit its image."""


class ModelError(NucleusKDError):
    """A model package is missing, damaged or does not do what its card says."""


class UnknownSegmenterError(NucleusKDError, KeyError):
    """No segmenter has this name."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


class BaselineError(NucleusKDError):
    """Another tool, such as Cellpose, is not installed where it is looked for, or fails."""


class DeviceError(NucleusKDError):
    """The chosen device is not there or has too little memory."""
