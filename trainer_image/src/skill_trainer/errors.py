"""The trainer's own faults: each has a CamelCase `reason` for conditions and a `message` with value and way out.

    TrainerError
    ├── ConfigInvalid    the configuration asks for what cannot be done
    ├── ModelInvalid     the folder is no model that this trainer can train
    ├── FormatMismatch   the folder's weights are quantised, and those that training publishes are not
    ├── ParentMismatch   the repository is not where the user, or this run, expects it to be
    ├── PromptTooLong    a prompt and its answer do not fit the model's context
    ├── OutOfMemory      the accelerator is too small
    ├── Diverged         a loss or gradient is not finite
    └── Preempted        asked to stop; everything is saved

The data have their own, DataError, and the model repository its tree in `skill_store.errors`.
"""
# ruff: noqa: N818 - the classes carry the names of the reasons that a user reads

from __future__ import annotations


class TrainerError(ValueError):
    """A fault that the same run would meet again: a retry cannot help."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def reason(self) -> str:
        """The class's own name: the reason of a condition."""
        return type(self).__name__


class ConfigInvalid(TrainerError):
    """The configuration asks for what cannot be done."""


class ModelInvalid(TrainerError):
    """A folder is no model that this trainer can train."""


class FormatMismatch(TrainerError):
    """The weights that are served are quantised; an engine set up for them cannot load what training publishes."""


class ParentMismatch(TrainerError):
    """The repository's head, or this run's folder, is not what was expected."""


class PromptTooLong(TrainerError):
    """A prompt and the longest answer to it do not fit the model's context. Never truncated."""


class OutOfMemory(TrainerError):
    """The accelerator's memory is too small for the batch."""


class Diverged(TrainerError):
    """A loss or a gradient is NaN or infinite."""


class Preempted(TrainerError):
    """SIGTERM came; what was reached is saved, and the same command goes on from there."""
