"""How a step is started: one JSON document in the environment variable SKILL_CONFIG (or a file, by hand)."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from skill_contract.model import Document
from skill_contract.spec import Data, Gates, Method, Model, Skill, Training

CONFIG_VARIABLE = "SKILL_CONFIG"
PROGRESS_PORT = 8090
"""Container port, named `progress`, on which the train step serves /progress and /metrics."""
MEETING_PORT = 29500
"""Container port, named `meeting`, at which the first of several pods is found by the others; then they talk freely."""

PODS_AT_ONCE = 4
"""Serving pods that the promote step asks side by side: its time grows with their number."""


class Step(StrEnum):
    CHECK = "check"
    TRAIN = "train"
    PROMOTE = "promote"


class UpdateIdentity(Document):
    """The SkillUpdate that a step works for."""

    namespace: str
    name: str
    uid: str
    """Names the run's folder in the model repository: `runs/<uid>/`."""


class TrainConfig(Document):
    """Configuration of the `check` and the `train` step: the parts of the spec that they need, as the spec has them."""

    update: UpdateIdentity
    model: Model
    skill: Skill
    data: Data
    method: Method = Method()
    training: Training = Training()
    gates: Gates = Gates()


class Pod(Document):
    """One serving pod to be proved."""

    name: str
    url: str
    """`http://<pod IP>:<port>`, or `https://` where it ends TLS itself."""


class Retention(Document):
    """Which versions the promote step leaves once it has moved the head; with none of this document, all."""

    keep_versions: int = Field(ge=2)
    in_use: tuple[str, ...] = ()
    """Names of versions that stay whatever their age: served, to be gone back to, or at work."""
    updates: tuple[str, ...] = ()
    """Uids of updates that have not ended: their checkpoints stay."""


class PromoteConfig(Document):
    """Configuration of the `promote` step: prove what the pods serve, then move the head to `version`.

    With no pods (publish only) the head is moved without a proof; with none and `prove_only` it is only looked up
    whether `version` is there.
    """

    update: UpdateIdentity
    model_uri: str
    version: str
    digest: str
    parent_digest: str
    """The head must still be this version; the compare-and-swap of promotion."""
    served_model_name: str = ""
    pods: tuple[Pod, ...] = ()
    prove_only: bool = False
    """Leave the head where it is: the rest of the pods is still to come."""
    retention: Retention | None = None
