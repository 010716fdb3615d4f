"""The Helm chart: what it renders, what its schema refuses, and whether a real API server takes it."""

import importlib.util
import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import yaml

from skill_operator.settings import read_settings
from tests.api.crd import CRD, CRD_FILE, ROOT
from tests.cluster.binaries import binary
from tests.cluster.console import ClusterError, run
from tests.cluster.controlplane import ControlPlane

CHART = ROOT / "charts/skillupdate"
NAMESPACE = "skillupdate-system"
DIGEST = "sha256:" + "0123456789abcdef" * 4
EVERYTHING = {
    "imagePullSecrets": [{"name": "registry"}],
    "image": {"registry": "registry.example.com/m", "pullPolicy": "Always", "operator": {"digest": DIGEST}},
    "commonLabels": {"example.com/team": "models"},
    "extraVolumes": [{"name": "authority", "configMap": {"name": "authority"}}],
    "extraVolumeMounts": [{"name": "authority", "mountPath": "/authority", "readOnly": True}],
    "deploymentAnnotations": {"example.com/d": "4"},
    "serviceAccount": {"annotations": {"example.com/role": "operator"}},
    "extraEnv": [{"name": "SKILL_STATUS_SECONDS", "value": "30"}],
    "logFormat": "text",
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "control-plane", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "podAnnotations": {"example.com/a": "1"},
    "podLabels": {"example.com/b": "2"},
    "metrics": {
        "service": {"annotations": {"example.com/c": "3"}},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "podMonitor": {"enabled": True},
        "prometheusRule": {
            "enabled": True,
            "labels": {"a": "b"},
            "runbookBase": "https://git.example.org/our/skillupdate/",
        },
        "dashboards": {"enabled": True, "labels": {"our_dashboard": "yes"}, "folder": "Models"},
    },
    "servingTargets": {"leaderWorkerSet": True, "rollout": True, "inferenceService": True, "adapters": ["llm-adapter"]},
    "networkPolicy": {"enabled": True},
    "admissionPolicy": {
        "enabled": True,
        "actions": ["Warn", "Audit"],
        "default": {"uriPrefixes": ["s3://a", "file:///b/"], "maxGpus": 8, "approval": "Manual"},
        "namespaces": {"team-a": {"maxGpus": 64, "endpoints": ["aws"]}, "team-b": {}},
    },
}
VARIATIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": EVERYTHING,
    "namespaced": {"watchNamespaces": ["team-a", "team-b"]},
    "namespaced-everything": {**EVERYTHING, "watchNamespaces": ["team-a"]},
    "least": {
        "crds": {"enabled": False},
        "aggregateRoles": False,
        "releaseFinalizersOnUninstall": False,
        "serviceAccount": {"create": False, "name": "operator"},
        "metrics": {"service": {"enabled": False}},
        "resources": {},
        "rbac": {"create": False},
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
        "servingTargets": {"statefulSet": False},
    },
    "renamed": {"fullnameOverride": "a" * 63},
}
EACH = pytest.mark.parametrize("values", VARIATIONS.values(), ids=list(VARIATIONS))


def helm(*args: str, values: dict[str, Any] | None = None) -> str:
    return run([binary("helm"), *args, "--values", "-"], stdin=yaml.safe_dump(values or {}))


def render(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the objects of the chart, hooks included."""
    flags = ["--kube-version=1.34.4", f"--namespace={NAMESPACE}"]
    return [
        document
        for document in yaml.safe_load_all(helm("template", "r", str(CHART), *flags, values=values))
        if document
    ]


def of_kind(objects: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [each for each in objects if each["kind"] in kinds]


def operator_deployment(values: dict[str, Any]) -> dict[str, Any]:
    (deployment,) = of_kind(render(values), "Deployment")
    return deployment


def environment(values: dict[str, Any]) -> dict[str, str]:
    (container,) = operator_deployment(values)["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


def test_the_copies_of_the_crd_are_equal():
    assert (CHART / "files" / CRD_FILE.name).read_bytes() == CRD_FILE.read_bytes(), "run `make crds`"
    (rendered,) = of_kind(render({}), "CustomResourceDefinition")
    assert rendered["spec"] == CRD["spec"]


def test_the_tables_of_the_documentation_are_those_of_the_crd():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "crds/generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    page = (ROOT / "docs/api.md").read_text()
    assert generate.page_with_tables(page, CRD_FILE.read_text()) == page, "run `make crds`"
    assert '| `gates.retention.maxDrop` | string | `"0.02"` |' in page


def test_uninstalling_keeps_the_crd_unless_told():
    for values, policy in [({}, "keep"), ({"crds": {"keep": False}}, None)]:
        (crd,) = of_kind(render(values), "CustomResourceDefinition")
        assert crd["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == policy
    assert not of_kind(render({"crds": {"enabled": False}}), "CustomResourceDefinition")


@EACH
def test_lint(values):
    helm("lint", str(CHART), "--strict", "--kube-version=1.34.4", values=values)


@EACH
def test_names_are_unique_and_placed(values):
    objects = render(values)
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]
    assert len(names) == len(set(names))
    admission = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    cluster_wide = {"CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", *admission}
    assert all((kind in cluster_wide) == (namespace is None) for kind, namespace, _ in names)


@EACH
def test_no_rule_reads_secrets_or_has_a_wildcard(values):
    roles = [
        role
        for role in of_kind(render(values), "Role", "ClusterRole")
        if not role["metadata"]["name"].endswith(("-view", "-edit"))
    ]
    assert bool(roles) == values.get("rbac", {}).get("create", True)
    for rule in [rule for role in roles for rule in role["rules"]]:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "configmaps" not in rule["resources"] or rule["resourceNames"] == ["llm-adapter"]
        forbidden = {"secrets", "namespaces", "nodes", "pods/exec", "pods/log", "serviceaccounts/token"}
        assert not forbidden & set(rule["resources"])
        assert not {"escalate", "bind", "impersonate", "deletecollection"} & set(rule["verbs"])


def test_a_role_in_each_watched_namespace_and_none_for_the_cluster():
    objects = render({"watchNamespaces": ["team-a", "team-b"], "aggregateRoles": False})
    assert not of_kind(objects, "ClusterRole", "ClusterRoleBinding")
    assert [each["metadata"]["namespace"] for each in of_kind(objects, "Role")] == ["team-a", "team-b"]
    assert {each["subjects"][0]["namespace"] for each in of_kind(objects, "RoleBinding")} == {NAMESPACE}


@EACH
def test_the_operator_can_read_its_settings(values):
    settings = read_settings(environment(values))
    registry = f"{at}/" if (at := values.get("image", {}).get("registry")) else ""
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert settings.trainer_image == f"{registry}skillupdate/trainer:{version}"
    assert settings.store_image == f"{registry}skillupdate/store:{version}"
    assert settings.watched == tuple(values.get("watchNamespaces", ()))
    assert settings.log_format == values.get("logFormat", "json")
    assert settings.image_pull_policy == values.get("image", {}).get("pullPolicy", "")


def test_the_ports_are_those_of_the_operator():
    settings = read_settings(environment({}))
    (container,) = operator_deployment({})["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"health": settings.health_port, "metrics": settings.metrics_port}


def test_a_namespace_s_limits_complete_the_default_s():
    assert not of_kind(render({}), "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    objects = render(EVERYTHING)
    limits = {each["metadata"]["name"]: each["data"] for each in of_kind(objects, "ConfigMap")}
    default = {"uriPrefixes": "s3://a\nfile:///b/", "maxGpus": "8", "approval": "Manual"}
    assert limits["r-skillupdate-limits"] == limits["r-skillupdate-limits-team-b"] == default
    assert limits["r-skillupdate-limits-team-a"] == {**default, "maxGpus": "64", "endpoints": "aws"}
    chosen = {}
    for binding in of_kind(objects, "ValidatingAdmissionPolicyBinding"):
        (chosen[binding["spec"]["paramRef"]["name"]],) = binding["spec"]["matchResources"]["namespaceSelector"][
            "matchExpressions"
        ]
    key = "kubernetes.io/metadata.name"
    assert chosen == {
        "r-skillupdate-limits": {"key": key, "operator": "NotIn", "values": ["team-a", "team-b"]},
        "r-skillupdate-limits-team-a": {"key": key, "operator": "In", "values": ["team-a"]},
        "r-skillupdate-limits-team-b": {"key": key, "operator": "In", "values": ["team-b"]},
    }


def test_the_rules_of_the_chart_are_those_of_the_plain_file():
    (rule,) = of_kind(render(EVERYTHING), "PrometheusRule")
    plain = (CHART / "files/alerts.yaml").read_text()
    assert rule["spec"] == yaml.safe_load(
        plain.replace("docs/alerts.md", "https://git.example.org/our/skillupdate/docs/alerts.md")
    )
    assert not of_kind(render({}), "PrometheusRule")


def test_dashboards_are_found_by_a_label_and_their_links_lead_to_the_runbooks():
    ours = [each for each in of_kind(render(EVERYTHING), "ConfigMap") if "-dashboard-" in each["metadata"]["name"]]
    shown = {key: json.loads(text) for each in ours for key, text in each["data"].items()}
    for each in ours:
        assert each["metadata"]["labels"].items() >= {"grafana_dashboard": "1", "our_dashboard": "yes"}.items()
        assert each["metadata"]["annotations"] == {"grafana_folder": "Models"}
    for name in ("overview", "update"):
        document = shown.pop(f"skillupdate-{name}.json")
        (runbooks,) = [each for each in document["templating"]["list"] if each["name"] == "runbooks"]
        assert runbooks["query"] == "https://git.example.org/our/skillupdate/"
        runbooks["query"] = "https://git.example.com/skillupdate/"
        assert document == json.loads((CHART / f"files/dashboards/{name}.json").read_text())
    assert not shown


def test_a_digest_wins_over_a_tag():
    values = {"image": {"operator": {"repository": "registry:5000/operator", "tag": "x", "digest": DIGEST}}}
    (container,) = operator_deployment(values)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"registry:5000/operator@{DIGEST}"


@EACH
def test_no_key_stands_twice_and_all_objects_have_the_labels(values):
    """YAML readers differ in what they make of a key that stands twice: kustomize, for one, refuses."""
    text = helm("template", "r", str(CHART), "--kube-version=1.34.4", f"--namespace={NAMESPACE}", values=values)
    objects = [each for each in yaml.load_all(text, Loader=Strict) if each]
    for labels in (each["metadata"]["labels"] for each in objects):
        assert labels["app.kubernetes.io/instance"] == "r"
        assert labels.items() >= values.get("commonLabels", {}).items()


class Strict(yaml.SafeLoader):
    """Refuses a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{sorted(keys)}{node.start_mark}"
        return super().construct_mapping(node, deep)


def test_pods_of_hooks_are_none_of_the_deployment_and_all_are_let_through_by_the_policy():
    objects = render(EVERYTHING)
    (deployment,) = of_kind(objects, "Deployment")
    (policy,) = of_kind(objects, "NetworkPolicy")
    chosen = deployment["spec"]["selector"]["matchLabels"].items()
    hooks = [each["spec"]["template"] for each in of_kind(objects, "Job")] + of_kind(objects, "Pod")
    assert len(hooks) == 2
    assert chosen <= deployment["spec"]["template"]["metadata"]["labels"].items()
    for pod in [deployment["spec"]["template"], *hooks]:
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert not any(chosen <= pod["metadata"]["labels"].items() for pod in hooks)


def test_volumes_for_a_bundle_of_certificates_reach_every_pod_of_the_release():
    objects = render(EVERYTHING)
    pods = [each["spec"]["template"]["spec"] for each in of_kind(objects, "Deployment", "Job")]
    for spec in [*pods, *(each["spec"] for each in of_kind(objects, "Pod"))]:
        assert "authority" in {volume["name"] for volume in spec["volumes"]}
        assert "/authority" in {mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}


def test_one_operator_at_a_time():
    spec = operator_deployment({})["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"watchNamespace": ["a"]}, "watchNamespace"),
        ({"watchNamespaces": "team-a"}, r"watchNamespaces.*array"),
        ({"watchNamespaces": ["Team A"]}, r"watchNamespaces.*pattern"),
        ({"image": {"operator": "skillupdate/operator:1"}}, r"image.*operator.*object"),
        ({"image": {"operator": {"digest": "latest"}}}, r"digest.*pattern.*sha256"),
        ({"image": {"trainer": {"repository": ""}}}, r"repository"),
        ({"image": {"pullPolicy": "Sometimes"}}, r"IfNotPresent"),
        ({"image": {"registry": "registry.example.com/"}}, r"registry.*pattern"),
        ({"extraVolumeMounts": [{"name": "a"}]}, r"mountPath"),
        ({"logFormat": "xml"}, r"logFormat.*'json', 'text'"),
        ({"resources": {"memory": "1Gi"}}, r"resources.*memory"),
        ({"metrics": {"serviceMonitor": {"interval": 30}}}, r"interval.*string"),
        ({"networkPolicy": {"apiServerPorts": []}}, r"apiServerPorts"),
        ({"admissionPolicy": {"default": {"maxGPUs": 8}}}, r"maxGPUs"),
        ({"admissionPolicy": {"namespaces": {"a": {"uriPrefixes": ["gs://a"]}}}}, r"uriPrefixes.*pattern"),
        ({"metrics": {"prometheusRule": {"runbookBase": "docs"}}}, r"runbookBase.*pattern"),
        ({"rbac": None}, "--reset-then-reuse-values instead of --reuse-values"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name is needed where serviceAccount.create is false"),
        (
            {"metrics": {"service": {"enabled": False}, "serviceMonitor": {"enabled": True}}},
            "metrics.serviceMonitor needs metrics.service.enabled: true",
        ),
    ],
    ids=str,
)
def test_bad_values_are_refused_by_name(values, words):
    with pytest.raises(ClusterError) as refused:
        render(values)
    assert re.search(words, str(refused.value)), refused.value


def test_every_value_is_documented():
    """Above or beside each top-level value, or its group, there are words."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    values = yaml.safe_load("\n".join(lines))
    readme = (CHART / "README.md").read_text()
    assert not [key for key in values if f"`{key}" not in readme]


@pytest.fixture(scope="module")
def restricted(control_plane: ControlPlane) -> Iterator[str]:
    """A namespace that refuses pods outside the restricted Pod Security Standard."""
    name = f"chart-{uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    control_plane.kubectl("apply", "--filename=-", stdin=yaml.safe_dump(namespace))
    control_plane.kubectl("wait", "serviceaccount/default", f"--namespace={name}", "--for=create", "--timeout=60s")
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.api
@EACH
def test_a_real_api_server_takes_it(control_plane: ControlPlane, restricted, values):
    # The pod of `helm test` asks for the ServiceAccount, which a dry run does not make; its spec is tried below.
    ours = [
        each for each in render(values) if each["kind"] not in {"Pod", "ServiceMonitor", "PodMonitor", "PrometheusRule"}
    ]
    for each in ours:  # the namespaces of the values do not exist here
        if "namespace" in each["metadata"]:
            each["metadata"]["namespace"] = restricted
    # As JSON: Python would write the string "1e-5" without quotes, which YAML readers in Go take for a number.
    ours_as_one = json.dumps({"apiVersion": "v1", "kind": "List", "items": ours})
    shown = control_plane.kubectl("apply", "--dry-run=server", "--filename=-", stdin=ours_as_one)
    assert len(shown.splitlines()) == len(ours)


@pytest.mark.api
@EACH
def test_the_pods_are_restricted(control_plane: ControlPlane, restricted, values):
    """As bare pods: of a Deployment's template the API server only warns."""
    objects = render(values)
    specs = [each["spec"]["template"]["spec"] for each in of_kind(objects, "Deployment", "Job")]
    specs += [each["spec"] for each in of_kind(objects, "Pod")]
    assert len(specs) == (3 if values.get("releaseFinalizersOnUninstall", True) else 2)
    for spec in specs:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": restricted}}
        pod["spec"] = {**spec, "serviceAccountName": "default"}
        control_plane.kubectl("create", "--dry-run=server", "--filename=-", stdin=yaml.safe_dump(pod))
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


@pytest.mark.api
def test_the_fixture_would_refuse_a_careless_pod(control_plane: ControlPlane, restricted):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": restricted}}
    pod["spec"] = {"containers": [{"name": "c", "image": "i"}]}
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        control_plane.kubectl("create", "--dry-run=server", "--filename=-", stdin=yaml.safe_dump(pod))
