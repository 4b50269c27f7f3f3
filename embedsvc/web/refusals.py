"""Errors as JSON, in the shape that the clients of each dialect read.

The path tells which dialect it is, so that this also works where no route answers, and before one
was looked for.
"""

import msgspec

from embedsvc.errors import RequestError
from embedsvc.web.dialects.cohere import COHERE
from embedsvc.web.dialects.dialect import Dialect
from embedsvc.web.dialects.exo_schema import EXO
from embedsvc.web.dialects.ollama import OLLAMA
from embedsvc.web.dialects.openai_error import OPENAI
from embedsvc.web.dialects.rerank import RERANK
from embedsvc.web.dialects.tei_error import TEI
from embedsvc.web.dialects.voyage import VOYAGE

DIALECTS: tuple[Dialect, ...] = (OPENAI, OLLAMA, TEI, COHERE, EXO, RERANK, VOYAGE)


def write_error(error: RequestError, path: str = "", dialect: Dialect | None = None) -> bytes:
    """The body of a refusal, as the clients of a path read it. The path is "" where none is known.

    `dialect` is the one that the request's body is in, where that says more than its path.

    >>> write_error(RequestError("Too long."), "/api/embed")
    b'{"error":"Too long."}'
    """
    return msgspec.json.encode((dialect or dialect_of(path)).write(error))


def dialect_of(path: str) -> Dialect:
    """The dialect that a path belongs to.

    >>> [dialect_of(path).name for path in ("/v1/embeddings", "/api/tags", "/embed", "/v2/embed")]
    ['openai', 'ollama', 'tei', 'cohere']
    >>> [dialect_of(path).name for path in ("/v1/rerank", "/v2/rerank", "/voyage/v1/rerank")]
    ['rerank', 'cohere', 'voyage']
    """
    for dialect in DIALECTS:
        for base in dialect.paths:
            if path == base or path.startswith(f"{base}/"):
                return dialect
    return OPENAI
