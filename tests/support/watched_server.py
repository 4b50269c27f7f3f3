"""A server whose watchdog sees time pass as a test says."""

import numpy as np
from starlette.testclient import TestClient

from embedsvc.serving.watchdog import Watch


class WatchedServer:
    """A server over a tiny model, and its watchdog, whose time passes only when a test says so."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.watch: Watch = client.app.state.watch  # type: ignore[attr-defined]
        self.ended = False
        self.watch._end = self._count
        self.watch._stop.set()  # no ticks but ours

    def _count(self) -> None:
        self.ended = True

    def get(self, path: str) -> tuple[int, str]:
        answer = self.client.get(path)
        body = answer.json()
        return answer.status_code, body.get("error", {}).get("message", body.get("status"))

    def look(self, seconds: int) -> None:
        for _ in range(seconds):
            self.watch.look(1.0)
            self.client.portal.call(lambda: None)  # type: ignore[union-attr] - the loop turned

    def embed(self, text: str = "hello"):
        return self.client.post("/v1/embeddings", json={"model": "org/tiny", "input": text})

    def forget_that_it_was_well(self) -> None:
        (engine,) = self.watch._registry.engines().values()
        engine._checked = engine.batcher.succeeded = -np.inf
