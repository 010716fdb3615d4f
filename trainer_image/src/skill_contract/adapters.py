"""What is said about adapters of a live engine: the operator tells pods by a ConfigMap, each pod's agent reports."""

from __future__ import annotations

from collections.abc import Mapping

from skill_contract.manifest import FetchMessage
from skill_contract.model import Document

WEIGHTS_KEY, PREVIOUS_KEY, HELD_KEY = "weights", "previous", "held"
"""Keys of the ConfigMap, as `Told` has them."""
HELD = "true"
REPORT_PATH = "/skillupdate/adapter"
"""Where an agent reports, on the port at which its pod is asked questions."""
READY_PATH = "/skillupdate/ready"
OWN, OLDER = "adapter", "adapters"
"""Folders of a version, in PEFT's format: the adapter of its parent; of each version before that, below its name."""


class Told(Document):
    """Which versions a pod's engine is to hold, each as `<folder>@<digest>`, and which of them answers."""

    weights: str = ""
    """Empty: none, the model answers as the pod's own weights make it."""
    previous: str = ""
    """The version before, kept beside the other as long as there may be a way back."""
    held: bool = False
    """The version before goes on answering: the other is only loaded, to be proved under its own name."""

    @property
    def answering(self) -> str:
        """The version that is to answer under the served model name."""
        return self.previous if self.held else self.weights

    @classmethod
    def of(cls, data: Mapping[str, str]) -> Told:
        """Returns what the data of a ConfigMap says."""
        return cls(
            weights=data.get(WEIGHTS_KEY, "").strip(),
            previous=data.get(PREVIOUS_KEY, "").strip(),
            held=data.get(HELD_KEY, "").strip() == HELD,
        )


class AdapterReport(Document):
    """How far a pod's agent is with what it was told."""

    told: Told
    """As this pod has it: the kubelet brings a ConfigMap's change within about a minute."""
    answers: str = ""
    """The version that answers under the served model name; empty: the pod's own weights."""
    ready: bool = False
    """The engine holds all versions that it was told, and the right one answers."""
    base: str = ""
    """Name of the version that the pod's own weights are."""
    fetch: FetchMessage | None = None
    """About `told.weights`: `Fetched` once the engine has loaded it from verified files; None: it is under way."""


def model_name(weights: str) -> str:
    """Returns the name under which an engine holds a version: that of the version, so it is never used for another."""
    return weights.partition("@")[0].rstrip("/").rpartition("/")[2]
