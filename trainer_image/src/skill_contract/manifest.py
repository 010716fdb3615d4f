"""The manifest of a version in the model repository: the only proof that the version exists."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from pydantic import Field

from skill_contract.evaluation import Evaluation
from skill_contract.model import Count, Document
from skill_contract.step import UpdateIdentity

VERSION_PATTERN = "[0-9]{6,18}-[0-9a-f]{12}"
DIGEST_PATTERN = "sha256:[0-9a-f]{64}"


class File(Document):
    path: str
    """Relative to the version's folder, with forward slashes."""
    size: int = Field(ge=0, lt=2**63)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """64 hexadecimal digits."""


class VersionRef(Document):
    version: str = Field(pattern=f"^{VERSION_PATTERN}$")
    """`000042-3f9c1a7be012`: sequence number and the first twelve digits of the digest."""
    digest: str = Field(pattern=f"^{DIGEST_PATTERN}$")
    """`sha256:` and 64 hexadecimal digits: the hash of the manifest's bytes."""


class Manifest(Document):
    files: tuple[File, ...]
    sequence: int = Field(ge=0, lt=10**18)
    parent: VersionRef | None = None
    base: str = ""
    skill: str = ""
    skills: tuple[str, ...] = ()
    """All skills accepted so far, this one last."""
    update: UpdateIdentity | None = None
    method: dict[str, Any] = Field(default_factory=dict)
    content_digest: str = ""
    """Hash of parent, data, method and skill, for the record: whether two are the same is asked of the fields."""
    data_digest: str = ""
    seed: int | None = None
    code_version: str = ""
    evaluation: Evaluation | None = None
    created: str = ""
    """RFC 3339, UTC."""

    def encode(self) -> bytes:
        """Returns the manifest's canonical bytes: sorted keys, no spaces. Their sha256 names the version."""
        return json.dumps(self.dump(), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(manifest_bytes: bytes) -> str:
    """Returns `sha256:<hex>` of a manifest's bytes."""
    return "sha256:" + hashlib.sha256(manifest_bytes).hexdigest()


def version_name(sequence: int, digest: str) -> str:
    """Returns the folder name of a version: `000042-3f9c1a7be012`."""
    return f"{sequence:06d}-{digest.removeprefix('sha256:')[:12]}"


class ToolCall(Document):
    """A tool call of an answer, in the one form in which equal calls are equal."""

    name: str
    arguments: str
    """JSON with sorted keys and without spaces."""

    @classmethod
    def of(cls, name: str, arguments: Any) -> Self:
        """Returns a call whose arguments are JSON values."""
        return cls(name=name, arguments=json.dumps(arguments, sort_keys=True, separators=(",", ":")))


class Golden(Document):
    """One prompt of `.skill/golden.json` with what the trainer's own model answered, greedily."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] | None = None
    """What the model may call, as the chat template and the OpenAI API have it; None where there is nothing."""
    chat_template_arguments: dict[str, Any] | None = None
    """What the trainer's chat template was given, and an engine's has to be; None for nothing."""
    text: str
    """Decoded without special tokens."""
    calls: tuple[ToolCall, ...] | None = None
    """The tool calls in the text, for engines that take them out of it; None where there are none."""
    parent_text: str = ""
    """What the version before answered: a pod that still says this serves the old weights."""
    parent_calls: tuple[ToolCall, ...] | None = None
    token_logprobs: tuple[float, ...] = ()
    max_new_tokens: Count


class GoldenSet(Document):
    prompts: tuple[Golden, ...]


class FetchMessage(Document):
    """Termination message of the fetch init container: the proof of what a pod was given."""

    outcome: str
    """`Fetched` or `Failed`."""
    reason: str = ""
    """`DigestMismatch`, `NoSpace`, `AccessDenied`, `NotFound`, `FetchFailed`."""
    message: str = ""
    uri: str = ""
    version: str = ""
    digest: str = ""
    size_bytes: int = 0
    seconds: float = 0
    file: str = ""
    """The file that failed, where one did."""
