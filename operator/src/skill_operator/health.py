"""Is the event loop alive? A pulse that is measured, and an endpoint that only a living loop can answer."""

from __future__ import annotations

import asyncio

from aiohttp import web

from skill_operator.metrics import PULSE_SECONDS, Metrics


async def pulse(metrics: Metrics) -> None:
    """Measures, for ever, how late the event loop wakes what it was to wake."""
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(PULSE_SECONDS)
        metrics.beat(max(0.0, loop.time() - before - PULSE_SECONDS))


async def serve_health(port: int, ready: asyncio.Event) -> web.AppRunner:
    """Serves GET /healthz (the loop turns) and GET /readyz (the watches have begun); the caller cleans up."""

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        return web.json_response({"ready": ready.is_set()}, status=200 if ready.is_set() else 503)

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", port).start()  # noqa: S104 - the kubelet asks from outside the pod
    return runner
