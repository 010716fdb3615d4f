"""The builders' Jobs on a real API server: valid to the last field, and their pods pass `restricted`."""

from __future__ import annotations

import pytest

from tests.operator.api.place import Place
from tests.operator.test_manifests import TEMPLATE, jobs

pytestmark = pytest.mark.api

STORAGE = {"secretRef": {"name": "s3-creds"}, "endpoint": "http://s3:8333"}


@pytest.fixture
async def restricted(place: Place) -> Place:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    headers = {"Content-Type": "application/merge-patch+json"}
    answer = await place.client.patch(
        f"/api/v1/namespaces/{place.namespace}", json={"metadata": {"labels": labels}}, headers=headers
    )
    answer.raise_for_status()
    return place


@pytest.mark.parametrize("step", ["check", "train", "promote"])
async def test_job_and_its_pod_are_accepted(restricted: Place, step: str):
    template = {key: value for key, value in TEMPLATE.items() if key != "priorityClassName"}
    resources = {"requests": {"cpu": 2, "memory": "1Gi"}, "limits": {"memory": "2Gi"}}
    job = jobs(storage=STORAGE, training={"template": template, "resources": resources})[step]
    await restricted.create("jobs", job, dry_run=True)
    pod = job["spec"]["template"]
    pod = pod | {"metadata": {"name": "x", "labels": pod["metadata"]["labels"]}}
    await restricted.create("pods", pod, dry_run=True)
