"""The operator's configuration: environment variables, read once at the start.

Every variable starts with SKILL_. Wrong values are all named at once, before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version

from skill_operator.manifests.pod import Images


class SettingsError(ValueError):
    """The environment does not describe a configuration; the message has one line per problem."""


@dataclass(frozen=True, slots=True)
class Settings:
    trainer_image: str
    """SKILL_TRAINER_IMAGE: image of the check and train steps."""
    store_image: str
    """SKILL_STORE_IMAGE: image of the promote step."""
    image_pull_policy: str = ""
    """SKILL_IMAGE_PULL_POLICY: for the steps' pods; empty: Kubernetes' default."""
    namespaces: str = ""
    """SKILL_NAMESPACES: comma-separated; empty: all namespaces."""
    metrics_port: int = 9090
    """SKILL_METRICS_PORT: Prometheus metrics; 0 for none."""
    health_port: int = 8080
    """SKILL_HEALTH_PORT: GET /healthz; 0 for none."""
    log_level: str = "INFO"
    """SKILL_LOG_LEVEL: DEBUG, INFO, WARNING or ERROR."""
    log_format: str = "json"
    """SKILL_LOG_FORMAT: json or text."""
    prometheus_url: str = ""
    """SKILL_PROMETHEUS_URL: where spec.serving.analysis is asked; empty for nowhere."""
    pass_seconds: float = 60.0
    """SKILL_PASS_SECONDS: limit of one look at one update."""
    status_seconds: float = 10.0
    """SKILL_STATUS_SECONDS: between two writes of nothing but progress."""

    @property
    def images(self) -> Images:
        return Images(self.trainer_image, self.store_image, self.image_pull_policy, own_version())

    @property
    def watched(self) -> tuple[str, ...]:
        """The namespaces that are watched; none named: all."""
        return tuple(name.strip() for name in self.namespaces.split(",") if name.strip())


def own_version() -> str:
    try:
        return version("skillupdate")
    except PackageNotFoundError:
        return ""


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Returns the settings in an environment.

    Raises:
        SettingsError: a variable is missing or has a value of the wrong kind.
    """
    values: dict[str, object] = {}
    problems: list[str] = []
    for field in fields(Settings):
        variable = f"SKILL_{field.name.upper()}"
        text = environment.get(variable, "")
        if text:
            values[field.name] = _converted(variable, text, str(field.type), problems)
        elif field.name in {"trainer_image", "store_image"}:
            problems.append(f"{variable} is not set: name the image of the steps")
    if problems:
        raise SettingsError("\n".join(problems))
    return Settings(**values)  # type: ignore[arg-type]  # converted by the fields' own types


def _converted(variable: str, text: str, kind: str, problems: list[str]) -> object:
    convert = {"int": int, "float": float}.get(kind, str)
    try:
        return convert(text)
    except ValueError:
        problems.append(f"{variable} is {text!r}, which is no {kind}")
        return None
