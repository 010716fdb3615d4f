"""The Kubernetes API as plain dicts in and out: the only importer of the client.

Errors come in three kinds, by what the caller can do about them:

    KubeError
    ├── Retryable   the server is away, slow or overloaded: try again later
    ├── Conflict    somebody was faster: look again, then decide anew
    └── Refused     not allowed, not valid, not there: a repetition will not change it
        └── Missing
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config

from skill_operator.api import FIELD_MANAGER, GROUP, PLURAL, VERSION
from skill_operator.metrics import Metrics

Object = dict[str, Any]
REQUEST_SECONDS = 20.0
PAGE = 500
_MERGE, _APPLY, _JSON = "application/merge-patch+json", "application/apply-patch+yaml", "application/json"
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class KubeError(Exception):
    """The API server did not do what was asked."""

    def __init__(self, message: str, *, code: int = 0, causes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.causes = causes
        """What the server named as causes: for a conflict of server-side apply, the other managers."""


class Retryable(KubeError):  # noqa: N818 - what the caller can do, not what happened
    """Try again later."""


class Conflict(KubeError):  # noqa: N818
    """Look again first."""


class Refused(KubeError):  # noqa: N818
    """A repetition will not change it."""


class Missing(Refused):
    """The object (or its kind) is not there."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of namespaced object, by its place in the API."""

    root: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, part: str | None = None) -> str:
        scope = f"/namespaces/{namespace}" if namespace else ""
        return "/".join(step for step in (f"{self.root}{scope}", self.plural, name, part) if step)


SKILL_UPDATES = Kind(f"/apis/{GROUP}/{VERSION}", PLURAL)
JOBS = Kind("/apis/batch/v1", "jobs")
JOBSETS = Kind("/apis/jobset.x-k8s.io/v1alpha2", "jobsets")
WORKLOADS = Kind("/apis/kueue.x-k8s.io/v1beta2", "workloads")
PODS = Kind("/api/v1", "pods")
DEPLOYMENTS = Kind("/apis/apps/v1", "deployments")
CONFIG_MAPS = Kind("/api/v1", "configmaps")
EVENTS = Kind("/apis/events.k8s.io/v1", "events")


def kind_at(api_version: str, plural: str) -> Kind:
    """Returns a kind by its apiVersion, such as apps/v1."""
    return Kind(f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}", plural)


class Kube:
    """The operator's way to the API server."""

    def __init__(self, api: client.ApiClient, metrics: Metrics) -> None:
        self._api = api
        self._metrics = metrics

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Returns an object; raises Missing where there is none."""
        return await self._request("GET", kind.path(namespace, name))

    async def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Returns an object, or None."""
        try:
            return await self.get(kind, namespace, name)
        except Missing:
            return None

    async def list(self, kind: Kind, namespace: str | None, selector: str = "", *, fields: str = "") -> list[Object]:
        """Returns all objects of a kind in a namespace (None: in all) that a label and a field selector pick."""
        selectors = {name: value for name, value in (("labelSelector", selector), ("fieldSelector", fields)) if value}
        return [item async for item in self._pages(kind, namespace, selectors, _JSON)]

    async def uids(self, kind: Kind, namespace: str | None, selector: str = "") -> frozenset[str]:
        """Returns the uids of all objects of a kind that `list` would return; only their metadata travels."""
        selectors = {"labelSelector": selector} if selector else {}
        return frozenset([item["metadata"]["uid"] async for item in self._pages(kind, namespace, selectors, _METADATA)])

    async def _pages(
        self, kind: Kind, namespace: str | None, selectors: Mapping[str, str], accept: str
    ) -> AsyncIterator[Object]:
        query: dict[str, str | int] = {"limit": PAGE, **selectors}
        while True:
            page = await self._request("GET", kind.path(namespace), query, accept=accept)
            for item in page["items"]:
                yield item
            following = page["metadata"].get("continue")
            if not following:
                return
            query["continue"] = following

    async def create(self, kind: Kind, manifest: Mapping[str, Any]) -> Object:
        """Creates an object; raises Conflict where one of that name is there."""
        return await self._request("POST", kind.path(manifest["metadata"]["namespace"]), body=manifest)

    async def patch(
        self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any], part: str | None = None
    ) -> Object:
        """Merge-patches an object (or its `status`); raises Conflict where the patch names an old resourceVersion."""
        return await self._request("PATCH", kind.path(namespace, name, part), body=patch, content=_MERGE)

    async def apply(self, kind: Kind, namespace: str, manifest: Mapping[str, Any]) -> Object:
        """Applies a manifest by server-side apply, never forced; raises Conflict where another manager owns a field."""
        path = kind.path(namespace, manifest["metadata"]["name"])
        return await self._request("PATCH", path, {"fieldManager": FIELD_MANAGER}, manifest, _APPLY)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Deletes the object with this uid, in the foreground; one that is gone is as good as deleted."""
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Foreground"}
        try:
            await self._request("DELETE", kind.path(namespace, name), body=options)
        except (Missing, Conflict):
            return

    async def is_served(self, kind: Kind) -> bool:
        """Returns whether the API server knows the kind."""
        try:
            group = await self._request("GET", kind.root)  # discovery: every account may ask
        except Missing:
            return False
        return any(resource["name"] == kind.plural for resource in group.get("resources", ()))

    async def may_list(self, kind: Kind, namespace: str | None) -> bool:
        """Returns whether objects of a kind may be listed: the kind is there, and so is the right."""
        try:
            await self._request("GET", kind.path(namespace), {"limit": 1}, accept=_METADATA)
        except Refused:
            return False
        return True

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = _JSON,
        *,
        accept: str = _JSON,
    ) -> Object:
        headers = {"Content-Type": content, "Accept": accept}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, None)
        url = self._api.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            with _transport_errors():
                response = await self._api.call_api(
                    method, url, header_params=headers, body=body, _request_timeout=REQUEST_SECONDS
                )
                text = await response.read()  # type: ignore[no-untyped-call]
        except Retryable:
            self._metrics.api_requests.labels(method, "none").inc()
            raise
        self._metrics.api_requests.labels(method, str(response.status)).inc()
        answer: Object = _decode(text)
        if response.status >= 400:
            raise _error(response.status, answer, f"{method} {path}")
        return answer


@contextmanager
def _transport_errors() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise Retryable(f"the API server did not answer: {error or type(error).__name__}") from error


def _decode(text: bytes) -> Object:
    try:
        answer = json.loads(text)
    except ValueError:
        return {"message": text.decode(errors="replace")}
    return answer if isinstance(answer, dict) else {"message": str(answer)}


def _error(code: int, answer: Object, request: str) -> KubeError:
    """Returns the error of an answer.

    Source: meta/v1 Status; codes in the Kubernetes API conventions, "HTTP Status codes".
    """
    details = answer.get("details") or {}
    causes = tuple(cause.get("message", "") for cause in details.get("causes") or ())
    message = f"{request}: {answer.get('message', code)}"
    kinds: dict[int, type[KubeError]] = {404: Missing, 409: Conflict, 410: Conflict, 401: Retryable, 408: Retryable}
    kinds |= {429: Retryable}
    fallback = Retryable if code >= 500 else Refused
    return kinds.get(code, fallback)(message, code=code, causes=causes)


def conflicting_managers(error: KubeError) -> str:
    """Returns the field managers that a conflict of server-side apply names, comma-separated.

    Source: apimachinery, NewApplyConflict: `conflict with "kubectl" using apps/v1`.
    """
    names = [name for cause in error.causes for name in re.findall(r'conflict with "([^"]*)"', cause)]
    return ", ".join(dict.fromkeys(names)) or "another manager"


@asynccontextmanager
async def connect(metrics: Metrics, context: str | None = None) -> AsyncIterator[Kube]:
    """Yields the API server that this process has access to: that of its pod, or that of KUBECONFIG.

    Args:
        context: of KUBECONFIG, which is then what counts.

    Raises:
        KubeError: there is no such configuration.
    """
    configuration = client.Configuration()
    try:
        await _configure(configuration, context)
    except config.ConfigException as error:
        raise KubeError(f"no cluster to talk to: {error}") from error
    async with client.ApiClient(configuration) as api:
        yield Kube(api, metrics)


async def _configure(configuration: client.Configuration, context: str | None) -> None:
    if context is None:
        with suppress(config.ConfigException):
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return
    await config.load_kube_config(client_configuration=configuration, context=context)  # type: ignore[no-untyped-call]
