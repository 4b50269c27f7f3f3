"""OpenAI's own clients, in Python and in Node."""

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openai
import pytest
import tiktoken

from clients.support import MODEL, TEXTS
from tests.support.programs import program

NODE = Path(__file__).parent / "node"


def test_python(server: str, right: Callable[..., None]) -> None:
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none")

    def embed(texts, **options):
        answer = client.embeddings.create(model=MODEL, input=texts, **options)
        assert [row.index for row in answer.data] == list(range(len(texts)))
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > len(texts)
        return [row.embedding for row in answer.data]

    right(embed, lambda text: embed([text])[0])
    right(lambda texts: embed(texts, encoding_format="float"))
    right(lambda texts: embed(texts, dimensions=384, user="u"))
    encoding = tiktoken.get_encoding("cl100k_base")
    right(lambda texts: embed([encoding.encode(text) for text in texts]))


def test_python_async(server: str, right: Callable[..., None]) -> None:
    def embed(texts: list[str]) -> list[list[float]]:
        async def main() -> list[list[float]]:
            async with openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="none") as client:
                calls = [client.embeddings.create(model=MODEL, input=text) for text in texts]
                return [answer.data[0].embedding for answer in await asyncio.gather(*calls)]

        return asyncio.run(main())

    right(embed)


def test_python_azure(server: str, right: Callable[..., None]) -> None:
    client = openai.AzureOpenAI(
        azure_endpoint=server, api_key="none", api_version="2024-10-21", azure_deployment=MODEL
    )
    right(
        lambda texts: [
            row.embedding for row in client.embeddings.create(model="x", input=texts).data
        ]
    )


def test_python_shows_what_is_wrong(server: str) -> None:
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0)
    for error, said, fields in (
        (openai.NotFoundError, "The model `x` does not exist", {"model": "x"}),
        (
            openai.BadRequestError,
            "maximum context length is 256",
            {"input": "word " * 300, "extra_body": {"truncate": "error"}},
        ),
        (openai.BadRequestError, "cannot be an empty string", {"input": ["a", ""]}),
        (openai.BadRequestError, "does not support specifying dimensions", {"dimensions": 256}),
        (openai.BadRequestError, "Its vectors have 384", {"dimensions": 1536}),
    ):
        with pytest.raises(error, match=said) as caught:
            client.embeddings.create(**({"model": MODEL, "input": "a"} | fields))
        assert caught.value.request_id
        assert repr(caught.value.body["message"]) in str(caught.value)


def test_python_extensions(server: str) -> None:
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none")
    raw = client.embeddings.with_raw_response.create(
        model=MODEL, input="word " * 300, extra_body={"truncate": "end"}
    )
    assert raw.headers["x-embedsvc-truncated"] == "1"
    assert raw.parse().usage.prompt_tokens == 256
    text = "Berlin is big. The city has parks."
    answer = client.embeddings.create(
        model=MODEL, input=text, extra_body={"chunks": [[0, 14], [15, 34]]}
    )
    both = np.array([row.embedding for row in answer.data])
    city = client.embeddings.create(model=MODEL, input=[text[15:], "Berlin"]).data
    alone, berlin = (np.array(row.embedding) for row in city)
    # In sight of the first sentence, the second is nearer to what it is about.
    assert both[1] @ berlin > alone @ berlin + 0.1


@pytest.mark.parametrize("version", ["openai", "openai6"])
def test_node(server: str, right: Callable[..., None], version: str) -> None:
    if not (NODE / "node_modules" / version).is_dir():
        subprocess.run([program("npm"), "ci", "--no-audit", "--no-fund"], cwd=NODE, check=True)

    def embed(texts: list[str]) -> list[list[float]]:
        asked = json.dumps({"url": f"{server}/v1", "model": MODEL, "input": texts})
        done = subprocess.run(
            [program("node"), "embed.mjs", version],
            cwd=NODE,
            input=asked,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    right(embed)
    assert len(TEXTS) > 1


def test_node_shows_what_is_wrong(server: str) -> None:
    asked = json.dumps({"url": f"{server}/v1", "model": "x", "input": "a"})
    done = subprocess.run(
        [program("node"), "embed.mjs", "openai"],
        cwd=NODE,
        input=asked,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "The model `x` does not exist" in done.stderr
