"""What a person at the command line sees: kubectl apply, explain and get."""

import json

import pytest
import yaml

from tests.api.conftest import KIND, Api
from tests.api.crd import EXAMPLES, SCHEMA, example, put, walk
from tests.api.test_changes import STATUS_SEEN
from tests.cluster.console import ClusterError
from tests.cluster.controlplane import ControlPlane

HEADER = ["NAME", "PHASE", "PROGRESS", "SKILL", "GAIN", "RETENTION", "VERSION", "AGE"]


def test_every_field_is_described():
    """The API server forbids a description of `metadata`, which it describes itself."""
    bare = [path for path, schema in walk(SCHEMA) if not schema.get("description") and path.split(".")[0] != "metadata"]
    assert not bare


def test_every_list_map_and_text_is_bounded():
    """Without bounds a rule's cost cannot be told, and one object could fill etcd."""
    free = []
    for path, schema in walk(SCHEMA):
        bound = {"array": "maxItems", "string": "maxLength"}.get(schema.get("type", ""))
        if schema.get("additionalProperties"):
            bound = "maxProperties"
        if bound and not schema.keys() & {bound, "enum", "format"}:
            free.append(path)
    assert sorted(free) == ["apiVersion", "kind"]


def test_every_rule_says_what_to_do():
    rules = [rule for _, schema in walk(SCHEMA) for rule in schema.get("x-kubernetes-validations", [])]
    assert len(rules) > 50
    assert all(rule["message"] for rule in rules)


@pytest.mark.api
def test_explain_has_words_for_every_field(api: Api, crd: ControlPlane):
    published = dict(walk(api.openapi()[KIND]))
    ours = {path for path, _ in walk(SCHEMA) if path.split(".")[0] != "metadata"}
    assert ours <= published.keys()
    assert not [path for path in ours if not published[path].get("description")]
    assert "exponential moving" in crd.kubectl("explain", "skillupdate.spec.method.sdft.teacher")


@pytest.mark.api
def test_columns(api: Api, crd: ControlPlane):
    api.created(example("full"))
    seen = {
        **STATUS_SEEN,
        "published": {"version": "000043-9be01a7c3f21"},
        "evaluation": {**STATUS_SEEN["evaluation"], "worstRetention": 0.984},
    }
    api.change("refund-tool", {"status": seen}, part="status").raise_for_status()
    header, row = crd.kubectl("get", "skup", f"--namespace={api.namespace}").splitlines()
    assert header.split() == HEADER
    assert row.split()[:-1] == ["refund-tool", "Training", "46%", "refund-tool", "0.18", "0.984", "000043-9be01a7c3f21"]
    header, row = crd.kubectl("get", "skup", f"--namespace={api.namespace}", "--output=wide").splitlines()
    assert header.split() == [*HEADER, "ATTEMPT", "STEP", "LOSS", "ETA", "MESSAGE"]
    assert row.split(maxsplit=12)[8:] == ["2", "420", "1.25", "2130", "Step 420 of 900"]


@pytest.mark.api
def test_short_name_and_category(api: Api, crd: ControlPlane):
    api.created(example("minimal"))
    for kind in ("skup", "skills", "skillupdates", "skillupdate.sdft.dev"):
        shown = crd.kubectl("get", kind, f"--namespace={api.namespace}", "--output=name")
        assert shown.strip() == "skillupdate.sdft.dev/refund-tool"
    assert "refund-tool" not in crd.kubectl("get", "all", f"--namespace={api.namespace}", "--output=name")


@pytest.mark.api
@pytest.mark.parametrize("flags", [[], ["--server-side"]], ids=["client-side", "server-side"])
def test_apply_twice_is_quiet(api: Api, crd: ControlPlane, flags):
    apply = ["apply", f"--namespace={api.namespace}", f"--filename={EXAMPLES / 'full.yaml'}", *flags]
    assert crd.kubectl(*apply).strip().endswith(("created", "serverside-applied"))
    assert crd.kubectl(*apply).strip().endswith(("unchanged", "serverside-applied"))
    shown = crd.kubectl("get", "skup", "refund-tool", f"--namespace={api.namespace}", "--output=json")
    assert json.loads(shown)["metadata"]["generation"] == 1


@pytest.mark.api
def test_apply_refuses_a_field_that_does_not_exist(api: Api, crd: ControlPlane):
    update = put(example("minimal"), "spec.data.heldout", {"uri": "s3://skills/refund/test.jsonl"})
    with pytest.raises(ClusterError, match=r'unknown field "spec\.data\.heldout"'):
        crd.kubectl("apply", f"--namespace={api.namespace}", "--filename=-", stdin=yaml.safe_dump(update))
