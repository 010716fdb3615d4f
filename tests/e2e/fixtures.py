"""Fixtures of the end-to-end rung: the cluster once a session, a world for each story."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import cluster as test_cluster
from tests.cluster import Cluster
from tests.e2e import story
from tests.e2e.world import World


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The real cluster; taken down at the end where this session brought it up."""
    was_up = test_cluster.is_up()
    yield test_cluster.up()
    if not was_up:
        test_cluster.down()


@pytest.fixture(scope="session")
def world(cluster: Cluster) -> World:
    """Operator, object store and two replicas of the served base model, in a fresh namespace."""
    world = World(cluster, "skills")
    world.create_namespace()
    world.install_operator()
    world.start_storage()
    story.serve_base_model(world)
    return world


@pytest.fixture(scope="session")
def first_skill(world: World) -> dict[str, Any]:
    """The README's SkillUpdate, taught to its end; `answers` holds what was served before."""
    story.upload_skill(world, "velmora")
    world.apply(story.demo_update())
    return story.settle(world, "velmora")


@pytest.fixture(scope="session")
def jobset(cluster: Cluster) -> Iterator[None]:
    """JobSet, controller and webhooks, on the cluster: it comes while the operator runs."""
    engine = test_cluster.engine("jobset")
    engine.install()
    engine.start()
    yield
    engine.stop()
