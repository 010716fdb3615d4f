"""What a plan may ask for: small values, carried out by `reconcile`, each harmless when done twice.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skill_operator.api import VERSION_ANNOTATION, WEIGHTS_ANNOTATION
from skill_operator.names import version_in


@dataclass(frozen=True, slots=True)
class CreateJob:
    """Create a Job or JobSet; one that is already there with this update's uid is the same."""

    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def kind(self) -> str:
        return str(self.manifest["kind"])


@dataclass(frozen=True, slots=True)
class PatchJob:
    """Merge-patch a Job or JobSet."""

    kind: str
    name: str
    patch: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Delete a Job or JobSet and wait for its pods: it stays visible, as deleting, until the last of them is gone."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class DeletePod:
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a serving target is told its version: in an object of its namespace, at one path or more."""

    api_version: str
    kind: str
    plural: str
    name: str
    paths: tuple[tuple[str, ...], ...]
    """Of the maps of annotations that its pods are made with, such as (spec, template, metadata, annotations)."""
    key: str = WEIGHTS_ANNOTATION
    """In those maps."""
    hold: tuple[str, ...] = ("spec", "paused")
    """Path of what holds a rollout."""
    hold_value: bool | str = True
    beside: tuple[str, ...] = ()
    """Path of the version before, where pods keep that one, too; empty where they do not."""

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}"

    def told(self, weights: str) -> dict[str, str]:
        """Returns what stands in each of the maps for a version."""
        beside = {VERSION_ANNOTATION: version_in(weights)} if self.key == WEIGHTS_ANNOTATION else {}
        return {self.key: weights} | beside

    @property
    def words(self) -> str:
        what = "annotation" if self.key == WEIGHTS_ANNOTATION else "key"
        return f"{what} {self.key} of {self.title}"


@dataclass(frozen=True, slots=True)
class ApplyWeights:
    """Tell a serving target its version by server-side apply; empty: give the field up."""

    place: Place
    weights: str
    hold: bool = False
    """Also what holds the rollout: no further pod is replaced. Without it our hold, if there is one, is given up."""
    beside: str = ""
    """The version before, to be kept beside it; empty: given up."""


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    pass


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    pass


@dataclass(frozen=True, slots=True)
class NoteRollback:
    """Write on the SkillUpdate itself why its candidate is taken back."""

    note: str


Action = CreateJob | PatchJob | DeleteJob | DeletePod | ApplyWeights | AddFinalizer | RemoveFinalizer | NoteRollback


@dataclass(frozen=True, slots=True)
class News:
    """One Kubernetes Event to be told."""

    reason: str
    message: str
    warning: bool = False
    once: bool = False
    """Told once in an update's life, in whatever words: a milestone that is learnt anew is no news."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An action that the API server did not accept, for a reason that a repetition will not change."""

    action: Action
    reason: str
    """A Reason of the api module."""
    message: str
