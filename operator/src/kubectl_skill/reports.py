"""Where an update's report lies, and how it is fetched: with the user's own access to the store, never the cluster's.

What is in a report (prompts, answers) is for those who may read the model repository, so nobody's Secret is borrowed.
skill_store is imported when it is needed only: `pip install 'skillupdate[store]'` brings what it needs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubectl_skill.errors import NotFoundError, PluginError, RefusedError, UnavailableError
from skill_operator import status as statuses

PAGE = "report.html"
_ENDPOINT = "AWS_ENDPOINT_URL_S3"


@dataclass(frozen=True)
class Place:
    """The report of one update."""

    repository: str
    key: str
    endpoint: str

    @property
    def uri(self) -> str:
        return f"{self.repository}/{self.key}"

    @property
    def by_hand(self) -> str:
        """The command that fetches it without us."""
        if not self.uri.startswith("s3://"):
            return f"cp {self.uri.removeprefix('file://')} {PAGE}"
        endpoint = f" --endpoint-url {self.endpoint}" if self.endpoint else ""
        return f"aws s3 cp {self.uri} {PAGE}{endpoint}"


def place(body: Mapping[str, Any], endpoint: str | None) -> Place:
    """Returns where the report of a raw SkillUpdate lies: in its run's folder, whether it was published or not.

    Args:
        endpoint: of the store as it is reached from here; None: as the spec or the environment says.

    Raises:
        NotFoundError: nothing was judged yet, so there is none.
    """
    spec, name = body.get("spec") or {}, body["metadata"]["name"]
    if statuses.read(body.get("status") or {}).evaluation is None:
        raise NotFoundError(
            f"{name} has no report: one is written when the gates have judged; kubectl skill status {name} shows how "
            "far it is"
        )
    chosen = endpoint or os.environ.get(_ENDPOINT) or (spec.get("storage") or {}).get("endpoint") or ""
    return Place(spec["model"]["uri"].rstrip("/"), f"runs/{body['metadata']['uid']}/{PAGE}", chosen)


def fetch(where: Place) -> bytes:
    """Returns the page.

    Raises:
        PluginError: it cannot be had; the message has the way out.
    """
    try:
        from skill_store.errors import AccessDenied, StoreError  # noqa: PLC0415
        from skill_store.objects import open_store  # noqa: PLC0415
    except ModuleNotFoundError as missing:
        raise UnavailableError(
            f"to fetch {where.uri} the package {missing.name} is needed: pip install 'skillupdate[store]'; or: "
            f"{where.by_hand}"
        ) from missing
    if where.endpoint:
        os.environ[_ENDPOINT] = where.endpoint
    try:
        return open_store(where.repository).get(where.key).data
    except StoreError as error:
        raise _explained(where, error, refused=isinstance(error, AccessDenied)) from error


def _explained(where: Place, error: Exception, *, refused: bool) -> PluginError:
    from skill_store.errors import NotFound  # noqa: PLC0415

    if refused:
        return RefusedError(f"{error}: give your own access to the store, as the AWS SDK reads it (AWS_PROFILE, …)")
    if isinstance(error, NotFound) and where.uri.startswith("file://"):
        return NotFoundError(
            f"{where.uri} lies on a volume that the update's pods see: mount it, or copy it from there"
        )
    if isinstance(error, NotFound):
        return NotFoundError(str(error))
    return UnavailableError(
        f"{error}: where {where.endpoint or 'the store'} is only reached inside the cluster, forward its port "
        "(kubectl port-forward service/… 8333) and give --endpoint http://127.0.0.1:8333"
    )
