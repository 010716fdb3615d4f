"""InferenceService (serving.kserve.io/v1beta1) of KServe in its Standard mode, which was called RawDeployment.

The annotation is the predictor's; KServe carries it into the pod template of a Deployment that it owns, and whose
rollout this is. Weights come by the ClusterStorageContainer of the chart (`storageUri: skill://…`), or by an init
container of the predictor's own.
"""

from __future__ import annotations

from skill_contract.spec import SkillUpdateSpec
from skill_operator.actions import Place
from skill_operator.api import WEIGHTS_ANNOTATION, WEIGHTS_FIELD_PATH
from skill_operator.reading import is_true
from skill_operator.targets.deployment import rollout_state, uncreated_pods
from skill_operator.targets.engine import draft_model, kv_cache
from skill_operator.targets.kind import Raw, Standing, containers, fetchers, fingerprint, room, selector

SCHEME = "skill://"
_SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
"""On the pod template: the storageUri, for KServe's webhook, which adds the init container to each pod."""
_INITIALIZER = "storage-initializer"
_MODE = "serving.kserve.io/deploymentMode"
_OTHER_MODES = ("Knative", "Serverless", "ModelMesh")


class InferenceService:
    name, api_version, plural = "InferenceService", "serving.kserve.io/v1beta1", "inferenceservices"
    switch, site = "inferenceService", "https://kserve.github.io/website"

    def behind(self, raw: Raw, /) -> str:
        return f"{raw['metadata']['name']}-predictor"

    def read(self, raw: Raw, behind: Raw | None, /) -> Standing:
        is_settled, state = _rollout_state(raw, behind)
        template: Raw = behind["spec"]["template"] if behind else {"spec": {}}
        path = ("spec", "predictor", "annotations")
        uncreated, uncreated_since = uncreated_pods(behind or {})
        return Standing(
            annotated=raw,
            place=Place(self.api_version, self.name, self.plural, raw["metadata"]["name"], (path,)),
            containers=containers(template),
            kv_cache=kv_cache([template]),
            draft_model=draft_model([template]),
            fetchers=fetchers([template]) or _storage_initializer(template),
            selector=selector(behind["spec"]["selector"]) if behind else "",
            replicas=behind["spec"].get("replicas", 1) if behind else 0,
            is_settled=is_settled,
            state=state,
            template=fingerprint(template),
            unfit=_unfit(raw, self.behind(raw), is_there=behind is not None),
            room=_room(behind["spec"]) if behind else "",
            uncreated=uncreated,
            uncreated_since=uncreated_since,
        )

    def wiring(self, spec: SkillUpdateSpec) -> str:
        repository = spec.model.uri.partition("://")[2]
        return f"""\
set, with the chart's value kserve.storageContainer.enabled:
spec:
  predictor:
    model:
      storageUri: {SCHEME}{repository}
or give its predictor an init container of its own that takes {WEIGHTS_FIELD_PATH} for SKILL_WEIGHTS"""


def _room(deployment: Raw) -> str:
    """KServe takes back what is changed in its Deployment, and writes there what the predictor says.

    Source: KServe, ComponentExtensionSpec, `deploymentStrategy`.
    """
    rolling = (deployment.get("strategy") or {}).get("rollingUpdate") or {}
    setting = (
        "spec.predictor.deploymentStrategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 0, maxUnavailable: 1}} in "
        "the InferenceService"
    )
    return room(InferenceService.name, setting, rolling, deployment.get("replicas", 1))


def _storage_initializer(template: Raw) -> tuple[str, ...]:
    source = ((template.get("metadata") or {}).get("annotations") or {}).get(_SOURCE, "")
    return (_INITIALIZER,) if source.startswith(SCHEME) else ()


def _unfit(raw: Raw, deployment: str, *, is_there: bool) -> str:
    told = (raw["metadata"].get("annotations") or {}).get(_MODE)
    mode = (raw.get("status") or {}).get("deploymentMode") or told
    if mode in _OTHER_MODES:
        return f"its mode is {mode}, in which KServe makes no Deployment: create it with annotation {_MODE}: Standard"
    if raw["spec"]["predictor"].get("workerSpec"):
        return "its predictor has a workerSpec, whose pods get no weights of their own: leave it out"
    if not is_there:
        return f"KServe has made no Deployment {deployment} for it: see its conditions"
    return ""


def _rollout_state(raw: Raw, behind: Raw | None) -> tuple[bool, str]:
    """Returns whether KServe's Deployment stands still on what the predictor is told, and how far it is in words.

    Source: KServe, raw deployment reconciler: the Deployment's template has the predictor's annotations.
    """
    if behind is None:
        return False, "KServe has made no Deployment for it yet"
    wanted = (raw["spec"]["predictor"].get("annotations") or {}).get(WEIGHTS_ANNOTATION, "")
    metadata = behind["spec"]["template"].get("metadata") or {}
    if (metadata.get("annotations") or {}).get(WEIGHTS_ANNOTATION, "") != wanted:
        return False, "KServe has not told its Deployment the version yet"
    is_settled, state = rollout_state(behind)
    is_ready = is_true(raw.get("status") or {}, "PredictorReady")
    return is_settled and is_ready, state if is_ready else f"PredictorReady is not true; {state}"
