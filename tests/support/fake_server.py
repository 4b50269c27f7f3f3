"""An embedding server whose vectors come from checksums of the texts, and that does as told."""

import base64
import json
import threading
import zlib
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.bulk.manifest import PROBE

DIMENSIONS = 8
Answer = tuple[int, dict[str, str], bytes]


def vector_of(text: str) -> NDArray[np.float32]:
    """The vector of a text: unit length, the same on every machine."""
    vector = np.random.default_rng(zlib.crc32(text.encode())).normal(size=DIMENSIONS)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def refusal(status: int, message: str, **headers: str) -> Answer:
    """An answer that is an error."""
    return status, headers, json.dumps({"error": {"message": message}}).encode()


class FakeServer:
    """To be used in `with`; `texts` is what it was asked for, less the probes."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.script: deque[Answer | None] = deque()
        """The next answers in place of vectors; None hangs up."""
        self.seen: Callable[[int], None] = lambda count: None
        """Called with the number of texts so far, before they are answered."""
        self.refuse: Callable[[str], Answer | None] = lambda text: None
        """What to answer a request with such a text."""
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "FakeServer":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, body: bytes) -> Answer | None:
        """What is answered to a request for vectors; None to hang up."""
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

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fake.keys.add(self.headers["Authorization"])
                self._send(fake.answer(body))

            def do_GET(self) -> None:
                fake.keys.add(self.headers["Authorization"])
                self._send((200, {}, b'{"data": [{"id": "fake"}]}'))

            def _send(self, answer: Answer | None) -> None:
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, content = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return Handler
