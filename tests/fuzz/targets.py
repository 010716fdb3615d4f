"""All targets by name."""

from __future__ import annotations

from tests.fuzz import control, data, models, services, store
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (*data.TARGETS, *store.TARGETS, *services.TARGETS, *models.TARGETS, *control.TARGETS)
}
