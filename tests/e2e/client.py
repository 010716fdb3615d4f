"""Asks a served model all the time, with a new connection for each request; runs in a pod, with nothing but Python.

Says of each request, in a line of JSON: when it was sent (Unix seconds), how long it took, and what went wrong.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import urllib.request

ASKERS = 2
PAUSE_S = 0.4
TIMEOUT_S = 60
BODY = {
    "model": os.environ.get("MODEL", "/weights"),
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 1,
    "stream": False,
}


def main() -> None:
    """Asks until it is ended."""
    url = os.environ["URL"]
    for _ in range(ASKERS):
        threading.Thread(target=_ask_for_ever, args=[url]).start()


def _ask_for_ever(url: str) -> None:
    while True:
        sent = time.time()
        error = _ask(url)
        print(json.dumps({"sent": sent, "seconds": time.time() - sent, "error": error}) + "\n", end="", flush=True)
        time.sleep(PAUSE_S)


def _ask(url: str) -> str:
    """Returns what went wrong; empty: nothing."""
    headers = {"Content-Type": "application/json", "Connection": "close"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(BODY).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            return "" if json.load(reply)["choices"] else "no answer in it"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
