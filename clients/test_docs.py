"""What the documentation tells people to paste, for the libraries that it is about."""

import pytest

from tests.documents import Example, examples

PYTHON = [example for example in examples() if example.language == "python"]


@pytest.mark.parametrize("example", PYTHON, ids=[e.where for e in PYTHON])
def test_an_example_works(server: str, example: Example) -> None:
    exec(compile(example.at(server), example.where, "exec"), {})  # noqa: S102 - our own pages


def test_they_are_about_many_clients() -> None:
    assert {e.where.partition(":")[0] for e in PYTHON} >= {
        *("README.md", "openai.md", "langchain.md", "llama-index.md", "ollama.md", "api.md")
    }
