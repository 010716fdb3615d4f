"""Wiring: settings, gateways, health and metrics around kopf's watches. Nothing is decided here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import asdict

from skill_operator.agent_client import AgentClient
from skill_operator.handlers import configure_logging, watch
from skill_operator.health import pulse, serve_health
from skill_operator.kube import connect
from skill_operator.metrics import Metrics
from skill_operator.prometheus import Prometheus
from skill_operator.reconcile import World
from skill_operator.settings import Settings, own_version
from skill_operator.trainer_client import TrainerClient

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def build_world(settings: Settings) -> AsyncIterator[World]:
    """Yields the gateways, connected."""
    metrics = Metrics(own_version())
    async with (
        connect(metrics) as kube,
        TrainerClient() as trainers,
        AgentClient() as agents,
        Prometheus(settings.prometheus_url) as prometheus,
    ):
        yield World(
            settings=settings, kube=kube, trainers=trainers, agents=agents, prometheus=prometheus, metrics=metrics
        )


async def operate(settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Runs the operator until SIGTERM (or `stop`); everything that it knows is in the cluster."""
    configure_logging(level=settings.log_level, is_json=settings.log_format == "json")
    logger.info("the operator starts: %s", settings, extra={"configuration": asdict(settings)})
    ready = asyncio.Event()
    async with build_world(settings) as world:
        if settings.metrics_port:
            world.metrics.serve(settings.metrics_port)
        health = await serve_health(settings.health_port, ready) if settings.health_port else None
        heart = asyncio.create_task(pulse(world.metrics), name="pulse")
        try:
            await watch(world, ready, stop or asyncio.Event())
        finally:
            heart.cancel()
            if health:
                await health.cleanup()
