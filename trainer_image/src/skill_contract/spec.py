"""The spec of a SkillUpdate, as the CRD has it: same names, same defaults.

`crds/` stays the only source for users; a test holds these defaults against it. Decimals are strings in YAML (the
Kubernetes API conventions forbid floats in a spec) and floats here.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from skill_contract.evaluation import Signature
from skill_contract.model import Document

GraderName = Literal["exact", "contains", "regex", "choice", "number", "json", "tool_call"]


class Model(Document):
    """Which model repository is updated, and from which version."""

    uri: str
    """`s3://bucket/prefix` or `file:///folder`: the model repository."""
    base: str = ""
    """A plain Hugging Face directory, imported once as version 000000 where the repository is still empty."""
    parent: str = ""
    """Refuse to train unless the head's digest is exactly this."""
    keep_versions: int | None = Field(None, ge=2, le=1000)
    """How many versions of the lineage stay after promotion; None: all."""


class Skill(Document):
    name: str
    description: str = ""


class Suite(Document):
    """A held-out set of questions with a grader."""

    name: str
    uri: str
    grader: GraderName = "exact"


class HeldOut(Document):
    uri: str
    grader: GraderName = "exact"


class Rehearsal(Document):
    """Training records of earlier skills, taught again beside the new ones."""

    uris: tuple[str, ...]
    share: float = Field(0.5, gt=0, lt=1)
    """Of every batch, rounded; at least one record of each kind."""


class Data(Document):
    train: str
    held_out: HeldOut
    retention: tuple[Suite, ...] = ()
    rehearsal: Rehearsal | None = None


class SecretRef(Document):
    name: str


class Storage(Document):
    secret_ref: SecretRef | None = None
    endpoint: str = ""
    service_account_name: str = ""


class Divergence(StrEnum):
    FORWARD_KL = "ForwardKL"
    """KL(teacher || student), summed over the vocabulary."""
    REVERSE_KL = "ReverseKL"
    """KL(student || teacher)."""
    JSD = "JSD"
    """Jensen-Shannon divergence with equal weights."""


class TeacherWeights(StrEnum):
    EMA = "EMA"
    FROZEN = "Frozen"


class Teacher(Document):
    weights: TeacherWeights = TeacherWeights.EMA
    ema_rate: float = Field(0.01, gt=0, le=1)
    """phi <- rate * theta + (1 - rate) * phi, after every optimiser step."""


class PromptTemplate(StrEnum):
    DEFAULT = "Default"
    """The demonstration as a previous chat turn."""
    PAPER = "Paper"
    """The wording of arXiv 2601.19897, section 3, in the last user turn."""
    OWN = "Own"
    """The user's own wording, in the same place."""


class Demonstration(StrEnum):
    OWN = "Own"
    SHUFFLED = "Shuffled"
    """Another record's: a control, for experiments."""
    EMPTY = "Empty"
    """No words at all: a control, for experiments."""


class Prompt(Document):
    template: PromptTemplate = PromptTemplate.DEFAULT
    text: str = Field("", max_length=8192)
    """Of template Own: the last user turn, with `{question}` and `{demonstration}`. Other braces are text."""
    demonstration: Demonstration = Demonstration.OWN

    @model_validator(mode="after")
    def _has_its_words(self) -> Self:
        if bool(self.text) != (self.template is PromptTemplate.OWN):
            raise ValueError("write template: Own together with text, and with other templates remove text")
        missing = [each for each in ("{question}", "{demonstration}") if self.text and each not in self.text]
        if missing:
            raise ValueError(f"text has no {missing[0]}: write it where the record's own words are to stand")
        return self


class Sdft(Document):
    divergence: Divergence = Divergence.FORWARD_KL
    teacher: Teacher = Teacher()
    prompt: Prompt = Prompt()
    skip_tokens: int = Field(3, ge=0)
    """The first tokens of a completion that carry no loss (they repeat the demonstration's wording)."""


class LoRA(Document):
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    target_modules: tuple[str, ...] = ("all-linear",)
    publish: Literal["Merged", "Adapter"] = "Merged"
    """Adapter: the adapter itself, too, in a folder beside the merged weights."""


class Adaptation(Document):
    type: Literal["Full", "LoRA"] = "Full"
    lora: LoRA | None = None

    @property
    def adapter(self) -> LoRA | None:
        """The adapter that is trained, its defaults filled in; None where all weights are."""
        return (self.lora or LoRA()) if self.type == "LoRA" else None


FULL_RATE, ADAPTER_RATE = 1e-5, 1e-4
"""Learning rates where none is given. B of an adapter starts at zero (arXiv 2106.09685) and W moves only with it, so it
takes about ten times as much."""


class Optimizer(Document):
    learning_rate: float | None = Field(None, gt=0)
    """The highest one. Left out: by the adaptation; a Method has it filled in."""
    schedule: Literal["Cosine", "Constant"] = "Cosine"
    warmup_steps: int = Field(10, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)


class Rollout(Document):
    max_new_tokens: int = Field(512, ge=1)
    temperature: float = Field(1.0, gt=0)


TEMPLATE_GIVES = frozenset({
    "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "documents", "max_length",
    "messages", "padding", "return_assistant_tokens_mask", "return_dict", "return_tensors", "sanitize_control_tokens",
    "tokenize", "tokenizer_kwargs", "tools", "truncation",
})  # fmt: skip
"""What a chat template, or whoever applies it, is given by the trainer and by engines themselves."""
_ARGUMENT = re.compile("[A-Za-z_][A-Za-z0-9_]{0,62}")


class Method(Document):
    type: Literal["SDFT", "SFT"] = "SDFT"
    sdft: Sdft = Sdft()
    adaptation: Adaptation = Adaptation()
    optimizer: Optimizer = Optimizer()
    batch_size: int = Field(32, ge=1)
    epochs: int = Field(2, ge=1)
    steps: int | None = Field(None, ge=1)
    """Overrides `epochs` where given."""
    rollout: Rollout = Rollout()
    chat_template_arguments: dict[str, bool | int | float | str] = Field(default_factory=dict, max_length=16)
    """What the model's chat template is given besides chat and tools, such as `enable_thinking: false`."""
    seed: int = Field(17, ge=0)

    @field_validator("chat_template_arguments")
    @classmethod
    def _template_arguments(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name in arguments:
            if name in TEMPLATE_GIVES or name.endswith("_token") or not _ARGUMENT.fullmatch(name):
                raise ValueError(
                    f"{name!r:.80} is no argument of a chat template's own: remove it, and write those that the "
                    "model's template asks for, such as enable_thinking: false"
                )
        return arguments

    @model_validator(mode="after")
    def _with_learning_rate(self) -> Self:
        """Fills in the rate: one that is implied and the same one written make the same run and the same record."""
        if self.optimizer.learning_rate is None:
            rate = ADAPTER_RATE if self.adaptation.adapter else FULL_RATE
            optimizer = self.optimizer.model_copy(update={"learning_rate": rate})
            object.__setattr__(self, "optimizer", optimizer)  # frozen from here on
        return self


class Checkpoint(Document):
    every_steps: int = Field(50, ge=1)
    keep: int = Field(2, ge=1)


class FailurePolicy(Document):
    max_restarts: int = Field(3, ge=0)
    heartbeat_timeout_seconds: int = Field(900, ge=30)


class Training(Document):
    nodes: int = Field(1, ge=1)
    gpus_per_node: int = Field(1, ge=0)
    gpu_resource: str = "nvidia.com/gpu"
    """The extended resource that stands for one GPU."""
    resources: dict[str, Any] = Field(default_factory=dict)
    template: dict[str, Any] = Field(default_factory=dict)
    checkpoint: Checkpoint = Checkpoint()
    failure_policy: FailurePolicy = FailurePolicy()
    grace_period_seconds: int = Field(120, ge=30, le=7200)
    """From SIGTERM to SIGKILL: for the step that runs, and for a checkpoint on its way to the store."""
    active_deadline_seconds: int = Field(86400, ge=60)


class InContextGainGate(Document):
    mode: Literal["Enforce", "Warn", "Skip"] = "Enforce"
    min_gain: float = Field(0.05, ge=0, le=1)


class NewSkillGate(Document):
    min_gain: float = Field(0.05, ge=0, le=1)
    min_score: float = Field(0.0, ge=0, le=1)


class RetentionGate(Document):
    max_drop: float = Field(0.02, ge=0, le=1)
    min_normalized: float = Field(0.9, ge=0, le=1)


class Monitors(Document):
    mode: Literal["Enforce", "Warn", "Skip"] = "Enforce"
    """Enforce: signatures that call for it end training. Warn: all are only said. Skip: neither probes nor alarms."""
    every_steps: int = Field(25, ge=0)
    """Steps between two probes; 0: none, and the last state is published."""
    questions: int = Field(32, ge=1)
    """Most questions of the new skill in a probe, and of each other suite; all others share four times as many."""
    ignore: tuple[Signature, ...] = ()


class Gates(Document):
    in_context_gain: InContextGainGate = InContextGainGate()
    new_skill: NewSkillGate = NewSkillGate()
    retention: RetentionGate = RetentionGate()
    monitors: Monitors = Monitors()
    on_inconclusive: Literal["Reject", "Accept"] = "Reject"
    """What a verdict with too few items to tell counts as."""
    approval: Literal["Automatic", "Manual"] = "Automatic"


class TargetRef(Document):
    api_version: str = "apps/v1"
    kind: Literal["Deployment", "StatefulSet", "LeaderWorkerSet", "Rollout", "InferenceService"] = "Deployment"
    name: str

    @property
    def title(self) -> str:
        return f"{self.kind} {self.name}"


class AnalysisMetric(Document):
    """A value that is worse the higher it is, and how high it may be for the pods on the candidate."""

    name: str
    query: str
    """PromQL that gives one value; `$pods` and `$namespace` stand for the pods of one version."""
    max: float | None = Field(None, ge=0)
    max_increase: float | None = Field(None, ge=0)
    """Above the value of the pods on the version before."""
    max_ratio: float | None = Field(None, ge=0)
    """To the value of the pods on the version before."""


class Analysis(Document):
    """What Prometheus has to say before a version becomes the head."""

    samples: str
    """PromQL that gives the number of requests behind the metrics."""
    min_samples: int = Field(50, ge=1)
    metrics: tuple[AnalysisMetric, ...] = Field(min_length=1)
    canary_seconds: int = Field(0, ge=0)
    """How long the first new pod serves beside the old ones, and is analysed, before the others follow."""
    warmup_seconds: int = Field(60, ge=0)
    interval_seconds: int = Field(30, ge=10)
    failure_limit: int = Field(2, ge=1)
    """Fails in a row that take the candidate back."""
    on_inconclusive: Literal["RollBack", "Promote"] = "RollBack"


class Serving(Document):
    target_ref: TargetRef
    container: str = "server"
    port: int = Field(8000, ge=1, le=65535)
    served_model_name: str = ""
    strategy: Literal["Rolling", "Adapter"] = "Rolling"
    """Adapter: no pod is replaced, the adapter is loaded into the engines that run."""
    soak_seconds: int = Field(120, ge=0)
    progress_deadline_seconds: int = Field(1800, ge=60)
    rollback: Literal["Automatic", "Manual"] = "Automatic"
    analysis: Analysis | None = None


class SkillUpdateSpec(Document):
    """All of `spec`."""

    model: Model
    skill: Skill
    data: Data
    storage: Storage = Storage()
    method: Method = Method()
    training: Training = Training()
    gates: Gates = Gates()
    serving: Serving | None = None
    suspend: bool = False
    approved: bool = False
    revert: bool = False
