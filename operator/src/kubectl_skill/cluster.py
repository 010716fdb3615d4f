"""The cluster of the user's kubeconfig, with the user's rights: SkillUpdates, and what helps to explain them.

The only module here that knows the Kubernetes client, and the place where its faults become ours. It reads, watches,
and changes fields of a SkillUpdate's spec; it never reads Secrets.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.config.kube_config import KubeConfigMerger
from urllib3.exceptions import HTTPError

from kubectl_skill.errors import NotFoundError, PluginError, RefusedError, UnavailableError, UsageError
from kubectl_skill.picture import Body
from skill_operator.api import API_VERSION, GROUP, PLURAL, UPDATE_UID_LABEL, VERSION

CONNECT_SECONDS, READ_SECONDS = 5, 30
WATCH_SECONDS = 300
"""After so long the API server ends a watch, and a new one begins."""
PAUSES = (1, 2, 4, 8, 15, 30)
"""Seconds between the tries to go on with a watch that broke off."""
PAGE = 500
FIELD_MANAGER = "kubectl-skill"
_NAMESPACE_OF_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_MERGE = "application/merge-patch+json"
_TOO_OLD = 410
_WAYS_OUT = {
    401: ": log in to the cluster again",
    403: ": ask for that right, or choose another namespace with -n",
    409: ": it has changed meanwhile, so look at it again first",
}


class Cluster:
    """One namespace of a cluster, or all of them."""

    def __init__(self, api: client.ApiClient, namespace: str, *, everywhere: bool = False) -> None:
        self.namespace = namespace
        self.everywhere = everywhere
        self._api = api
        self._objects: Any = client.CustomObjectsApi(api)

    def update(self, name: str) -> Body:
        """Returns a SkillUpdate.

        Raises:
            NotFoundError: there is none of that name here; the message has those that are alike.
        """
        if self.everywhere:
            raise UsageError(f"--all-namespaces and {name}: give the namespace of that one with -n")
        try:
            return self._get(name)
        except NotFoundError as error:
            raise NotFoundError(f"{error}{self._alike(name)}") from error

    def _get(self, name: str) -> Body:
        with _answers(f"reading SkillUpdate {name}"):
            found: Body = self._objects.get_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, name, _request_timeout=(CONNECT_SECONDS, READ_SECONDS)
            )
            return found

    def _alike(self, name: str) -> str:
        try:
            here = [each["metadata"]["name"] for each in self.updates()]
            if here:
                near = difflib.get_close_matches(name, here, n=3, cutoff=0.5)
                return f"; did you mean {' or '.join(near)}?" if near else f"; there are {', '.join(here[:8])}"
            everywhere = self._list(None)[0]
        except PluginError:
            return ""
        there = [each["metadata"]["namespace"] for each in everywhere if each["metadata"]["name"] == name]
        if there:
            return f"; there is one in {', '.join(there)}: give it with -n"
        return f"; there is none in {self.namespace} at all, kubectl skill list -A shows the others"

    def updates(self) -> list[Body]:
        """Returns the SkillUpdates of the namespace, or of all, the oldest first."""
        return self._list(None if self.everywhere else self.namespace)[0]

    def _list(self, namespace: str | None, name: str = "") -> tuple[list[Body], str]:
        """Returns the objects, and the version from which a watch goes on."""
        found: list[Body] = []
        query: dict[str, Any] = {"limit": PAGE, "_request_timeout": (CONNECT_SECONDS, READ_SECONDS)}
        query |= {"field_selector": f"metadata.name={name}"} if name else {}
        while True:
            with _answers("listing SkillUpdates"):
                call, place = self._lister(namespace)
                page = call(*place, **query)
            found += page["items"]
            following = page["metadata"].get("continue")
            if not following:
                found.sort(key=lambda each: (each["metadata"].get("creationTimestamp", ""), each["metadata"]["name"]))
                return found, str(page["metadata"].get("resourceVersion", ""))
            query["_continue"] = following

    def _lister(self, namespace: str | None) -> tuple[Callable[..., Any], tuple[str, ...]]:
        """Returns what lists the SkillUpdates of a namespace (None: of all), and its first arguments."""
        if namespace is None:
            return self._objects.list_cluster_custom_object, (GROUP, VERSION, PLURAL)
        return self._objects.list_namespaced_custom_object, (GROUP, VERSION, namespace, PLURAL)

    def changes(self, name: str = "") -> Iterator[Mapping[str, Body]]:
        """Yields the SkillUpdates by uid, all of them or the one of that name, now and after every change, for ever.

        Raises:
            UnavailableError: the cluster has not answered for a minute.
        """
        pauses = iter(PAUSES)
        while True:
            try:
                for seen in self._watched(name):
                    pauses = iter(PAUSES)
                    yield seen
            except UnavailableError:
                pause = next(pauses, None)
                if pause is None:
                    raise
                time.sleep(pause)

    def _watched(self, name: str) -> Iterator[Mapping[str, Body]]:
        """Yields what there is and every change, until the server ends the watch."""
        namespace = None if self.everywhere else self.namespace
        items, version = self._list(namespace, name)
        seen = {item["metadata"]["uid"]: item for item in items}
        yield dict(seen)
        query: dict[str, Any] = {"resource_version": version, "timeout_seconds": WATCH_SECONDS}
        query |= {"field_selector": f"metadata.name={name}"} if name else {}
        query["_request_timeout"] = (CONNECT_SECONDS, WATCH_SECONDS + READ_SECONDS)
        call, place = self._lister(namespace)
        watching = watch.Watch()
        try:
            with _answers("watching SkillUpdates"):
                for event in watching.stream(call, *place, **query):
                    body: Body = event["raw_object"]
                    if event["type"] == "DELETED":
                        seen.pop(body["metadata"]["uid"], None)
                    else:
                        seen[body["metadata"]["uid"]] = body
                    yield dict(seen)
        except _TooOldError:
            return  # listed anew
        finally:
            watching.stop()

    def change(self, body: Body, spec: Mapping[str, Any], *, dry_run: bool = False) -> Body:
        """Sets fields of the spec of this very object, and returns it as it is then.

        Raises:
            RefusedError: it may not be changed so, or was deleted and created anew since it was read.
        """
        metadata = body["metadata"]
        patch = {"metadata": {"uid": metadata["uid"]}, "spec": dict(spec)}
        with _answers(f"changing SkillUpdate {metadata['name']}"):
            changed: Body = self._objects.patch_namespaced_custom_object(
                GROUP, VERSION, metadata["namespace"], PLURAL, metadata["name"], patch,
                field_manager=FIELD_MANAGER, field_validation="Strict", _content_type=_MERGE,
                _request_timeout=(CONNECT_SECONDS, READ_SECONDS), **({"dry_run": "All"} if dry_run else {}),
            )  # fmt: skip
            return changed

    def rehearse(self, body: Body) -> None:
        """Asks the API server whether it would take a new object; nothing is created.

        Raises:
            RefusedError: it would not; the message has the field and the way out.
        """
        with _answers("asking whether it would be accepted"):
            self._objects.create_namespaced_custom_object(
                GROUP, VERSION, self.namespace, PLURAL, body, dry_run="All", field_validation="Strict",
                _request_timeout=(CONNECT_SECONDS, READ_SECONDS),
            )  # fmt: skip

    def pods(self, namespace: str, uid: str) -> list[Body]:
        """Returns the pods of an update's steps."""
        return self._core("pods", namespace, "labelSelector", f"{UPDATE_UID_LABEL}={uid}")

    def events(self, namespace: str, uids: Iterable[str]) -> list[Body]:
        """Returns the events about these objects, the oldest first (core/v1, which whoever may view may list)."""
        found = [self._core("events", namespace, "fieldSelector", f"involvedObject.uid={uid}") for uid in uids]
        return sorted((event for events in found for event in events), key=_when)

    def _core(self, plural: str, namespace: str, selector: str, value: str) -> list[Body]:
        # Not by CoreV1Api: its classes of all kinds take longer to load than everything else together.
        request = self._api.param_serialize(
            "GET", f"/api/v1/namespaces/{{namespace}}/{plural}", {"namespace": namespace},
            query_params=[(selector, value)], auth_settings=["BearerToken"],
        )  # fmt: skip
        with _answers(f"listing {plural}"):
            answer = self._api.call_api(*request, _request_timeout=(CONNECT_SECONDS, READ_SECONDS))
            text = answer.read()
            if answer.status != 200:
                raise ApiException(http_resp=answer, body=text.decode(errors="replace"))
        items: list[Body] = json.loads(text)["items"]
        return items


def _when(event: Body) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((str(time) for time in times if time), "")


@dataclass(frozen=True)
class Access:
    """Which cluster, and as whom: kubectl's flags. None: what the kubeconfig says."""

    kubeconfig: str | None = None
    context: str | None = None
    cluster: str | None = None
    user: str | None = None
    server: str | None = None
    token: str | None = None
    impersonated: str | None = None
    namespace: str | None = None
    all_namespaces: bool = False


def connect(access: Access) -> Cluster:
    """Returns the cluster that the flags, KUBECONFIG, the default file or the pod's own account name.

    Raises:
        UnavailableError: there is no such configuration.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # what failed is said once, by us
    configuration = client.Configuration()
    configuration.retries = False
    try:
        own = _configure(configuration, access)
        _override(configuration, access)
        api = client.ApiClient(configuration)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, LookupError) as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise UnavailableError(f"no cluster to talk to: {words}: see kubectl config get-contexts") from error
    if access.impersonated:
        api.set_default_header("Impersonate-User", access.impersonated)
    return Cluster(api, access.namespace or own, everywhere=access.all_namespaces)


def _configure(configuration: client.Configuration, access: Access) -> str:
    """Reads the configuration and returns its own namespace."""
    files = access.kubeconfig or os.environ.get("KUBECONFIG") or config.KUBE_CONFIG_DEFAULT_LOCATION
    there = any(Path(each).expanduser().is_file() for each in files.split(os.pathsep) if each)
    named = access.kubeconfig or access.context or access.cluster or access.user
    if not there and not named and access.server:
        return "default"
    if not there and not named and _NAMESPACE_OF_POD.is_file():
        config.load_incluster_config(client_configuration=configuration)
        return _NAMESPACE_OF_POD.read_text().strip()
    if not there:
        raise config.ConfigException(f"there is no kubeconfig at {files}")
    merged = KubeConfigMerger(files).config
    if merged is None:
        raise config.ConfigException(f"there is nothing in {files}")
    chosen = _chosen(merged, access)
    config.load_kube_config_from_dict(merged, chosen["name"], configuration, persist_config=False)
    return str(chosen["context"].get("namespace") or "default")


def _chosen(merged: Any, access: Access) -> dict[str, Any]:
    """Returns the context that is used, with the cluster and the user that the flags name in the place of its own."""
    name = access.context or merged["current-context"]
    chosen: dict[str, Any] = merged["contexts"].get_with_name(name).value
    named = {"cluster": access.cluster, "user": access.user}
    chosen["context"] = (chosen.get("context") or {}) | {part: each for part, each in named.items() if each}
    return chosen


def _override(configuration: client.Configuration, access: Access) -> None:
    """A server and a token of the flags win over all that a kubeconfig says of them."""
    if access.server:
        configuration.host = access.server.rstrip("/")
    if access.token:
        configuration.api_key = {"BearerToken": f"Bearer {access.token}"}
        configuration.refresh_api_key_hook = None
        configuration.cert_file = configuration.key_file = None  # who shows a certificate, too, is known by it


class _TooOldError(Exception):
    """The version that a watch went on from is not kept any more."""


@contextmanager
def _answers(doing: str) -> Iterator[None]:
    """Turns what goes wrong between us and the API server into an error that a person can use."""
    try:
        yield
    except ApiException as error:
        if error.status == _TOO_OLD:
            raise _TooOldError from error
        raise _said(error, doing) from error
    except (HTTPError, OSError) as error:
        words = " ".join(str(error).split())
        raise UnavailableError(f"{doing}: the cluster does not answer ({words}): is it the right --context?") from error


def _said(error: ApiException, doing: str) -> PluginError:
    """Returns the error of an answer of the API server (meta/v1 Status; "HTTP Status codes" of its conventions)."""
    message = _message(error)
    if error.status == 404:
        unknown = f"{doing}: this cluster does not know {PLURAL} ({API_VERSION}): install skillupdate's chart first"
        return NotFoundError(message or unknown)
    if error.status == 422 and "metadata.uid" in message:
        return RefusedError(f"{doing}: it was deleted and created anew meanwhile, so look at it again first")
    if not error.status or error.status >= 500 or error.status == 429:
        return UnavailableError(f"{doing}: {message or error.reason}: try again")
    return RefusedError(f"{message or f'{doing}: {error.reason}'}{_WAYS_OUT.get(error.status, '')}")


def _message(error: ApiException) -> str:
    """Returns the API server's own sentence; empty where the answer is none of its documents."""
    try:
        answer = json.loads(error.body or "")
    except ValueError:
        return ""
    return str(answer.get("message", "")) if isinstance(answer, dict) else ""
