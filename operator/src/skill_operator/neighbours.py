"""The updates at work, as the watch brings them: who waits for whom is known without asking.

Pure, and no more than an index. It may lag behind the API server; so before anything is done because of it, a Lookout
asks there as well.
"""

from __future__ import annotations

from skill_operator.observed import Neighbour
from skill_operator.reading import Raw, model_key, neighbour
from skill_operator.status import is_reverting, read


class Neighbours:
    """Updates that are at work, forwards or back, by their model repository."""

    def __init__(self) -> None:
        self._models: dict[str, str] = {}
        self._of_model: dict[str, dict[str, Neighbour]] = {}
        self._rolling: dict[str, Neighbour] = {}

    def take(self, raw: Raw) -> None:
        """Takes an update as it is now; one that has ended is nobody's neighbour."""
        uid = raw["metadata"]["uid"]
        self.drop(uid)
        if not is_reverting(raw) and read(raw.get("status") or {}).is_final:
            return
        one = neighbour(raw)
        self._models[uid] = one.model
        self._of_model.setdefault(one.model, {})[uid] = one
        if one.rolling:
            self._rolling[uid] = one

    def drop(self, uid: str) -> None:
        """Forgets an update."""
        model = self._models.pop(uid, None)
        if model is None:
            return
        of_model = self._of_model[model]
        del of_model[uid]
        if not of_model:
            del self._of_model[model]
        self._rolling.pop(uid, None)

    def of(self, uri: str) -> tuple[Neighbour, ...]:
        """Returns the updates of a model repository, and those of others that are rolling a target."""
        own = self._of_model.get(model_key(uri), {})
        return (*own.values(), *(other for uid, other in self._rolling.items() if uid not in own))

    def __len__(self) -> int:
        return len(self._models)


def of_model(uri: str) -> tuple[str, ...]:
    """Returns field selectors that find the updates of a model repository: it is written with or without a slash.

    Source: CRD selectableFields; apimachinery, fields.EscapeValue.
    """
    model = _escaped(model_key(uri))
    return f"spec.model.uri={model}", f"spec.model.uri={model}/"


def of_target(name: str) -> str:
    """Returns a field selector that finds the updates of a Deployment in its namespace."""
    return f"spec.serving.targetRef.name={_escaped(name)}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
