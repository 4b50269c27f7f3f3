"""infinity's routes where its answers are not those of other servers, below `/infinity`.

Its paths are theirs, so a client that reads infinity's answers strictly takes
`http://127.0.0.1:8000/infinity` as its base URL.
"""

from starlette.requests import Request
from starlette.responses import Response

from embedsvc.web.dialects.rerank import answer_rerank
from embedsvc.web.dialects.rerank_schema import RerankAnswer, RerankBody, TeiRank
from embedsvc.web.dialects.score import ClassifyAnswer, ClassifyBody, answer_classify
from embedsvc.web.endpoint import Endpoint, read_body


async def rerank(request: Request) -> Response:
    """`POST /infinity/rerank`: as `/rerank`, with documents that come back as strings."""
    sent = await read_body(request, RerankBody)
    return await answer_rerank(request, sent, plain_documents=True)


async def classify(request: Request) -> Response:
    """`POST /infinity/classify`: as `/classify`, with infinity's answer always."""
    return await answer_classify(request, await read_body(request, ClassifyBody), vllms=False)


routes = [
    Endpoint(
        "POST", "/infinity/rerank", rerank, body=RerankBody, answer=RerankAnswer | list[TeiRank]
    ),
    Endpoint("POST", "/infinity/classify", classify, body=ClassifyBody, answer=ClassifyAnswer),
]
