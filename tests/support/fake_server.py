"""A fake embedding server. Its vectors come from checksums of the texts."""

import base64
import json
import threading
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.manifest import PROBE
from tests.support.http_server import HttpServer, QuietHandler

DIMENSIONS = 8
Answer = tuple[int, dict[str, str], bytes]


def vector_of(text: str) -> NDArray[np.float32]:
    """The vector of a text, of unit length. It is the same on every machine."""
    vector = np.random.default_rng(zlib.crc32(text.encode())).normal(size=DIMENSIONS)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def refusal(status: int, message: str, **headers: str) -> Answer:
    """An error as an answer."""
    return status, headers, json.dumps({"error": {"message": message}}).encode()


class FakeServer(HttpServer):
    """To be used in `with`. `texts` has all texts that were asked for, but for the probes."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.script: deque[Answer | None] = deque()
        """The next answers, in place of vectors. None closes the connection."""
        self.seen: Callable[[int], None] = lambda count: None
        """Called before each answer, with the number of texts so far."""
        self.refuse: Callable[[str], Answer | None] = lambda text: None
        """The answer to a request that has such a text; None for vectors."""
        self._lock = threading.Lock()
        super().__init__(self._handler())
        self.url += "/v1"

    def answer(self, body: bytes) -> Answer | None:
        """The answer to a request for vectors; None to close the connection."""
        sent: dict[str, Any] = json.loads(body)
        texts: list[str] = sent.get("input", [])
        with self._lock:
            self.requests.append(sent)
            self.texts += [text for text in texts if text != PROBE]
            self.seen(len(self.texts))
            if self.script and texts != [PROBE]:
                return self.script.popleft()
        for number, text in enumerate(texts):
            refused = self.refuse(text)
            if refused:
                status, headers, message = refused
                which = "input" if len(texts) == 1 else f"input[{number}]"
                return status, headers, message.replace(b"INPUT", which.encode())
        rows = [
            {
                "index": i,
                "embedding": base64.b64encode(
                    vector_of(sent.get("prompt", "") + text).tobytes()
                ).decode(),
            }
            for i, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 2 * len(texts)}
        return 200, {"openai-model": "fake"}, json.dumps({"data": rows, "usage": usage}).encode()

    def _handler(self) -> type[QuietHandler]:
        fake = self

        class Handler(QuietHandler):
            def post(self) -> None:
                fake.keys.add(self.headers["Authorization"])
                self._send(fake.answer(self.body()))

            def get(self) -> None:
                fake.keys.add(self.headers["Authorization"])
                self._send((200, {}, b'{"data": [{"id": "fake"}]}'))

            def _send(self, answer: Answer | None) -> None:
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, content = answer
                self.answer(status, content, **headers)

        return Handler
