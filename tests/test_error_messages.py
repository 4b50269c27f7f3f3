"""Messages of errors, in each dialect: OpenAI's words, and the field's own name."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.support.app import serve
from tests.support.checkpoints import write_bert, write_json
from tests.support.error_shapes import (
    EMBEDDINGS,
    NAMED,
    NOT_JSON,
    serve_with_limits,
    shaped,
)

LONG = "a " * 31  # 33 tokens with [CLS] and [SEP]; the limit is 32
UNCUT = {"truncate": "error"}


@pytest.fixture(scope="module")
def server(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serve_with_limits(tmp_path_factory.mktemp("errors"), tiny_folder) as client:
        yield client


WRONG: list[tuple[dict[str, object], str]] = [
    ({"model": None}, "you must provide a model parameter"),
    ({"model": ""}, "you must provide a model parameter"),
    ({"model": 7}, NOT_JSON),
    ({"input": None}, "Please submit an `input`."),
    ({"input": ""}, "Invalid 'input': input cannot be an empty string."),
    ({"input": ["a", ""]}, "Invalid 'input[1]': input cannot be an empty string."),
    ({"input": []}, "Invalid 'input': input cannot be an empty array."),
    ({"input": [[1], []]}, "Invalid 'input[1]': input cannot be an empty array."),
    ({"input": [1, 10**4000]}, f"Invalid 'input': 1{'0' * 199}… is not a token id of"),
    ({"input": [1, -(10**4000)], "model": "ids"}, f"'input': -1{'0' * 198}… is not a token id of"),
    ({"prompt_name": "a\n\x1b"}, "Invalid value for 'prompt_name' = a\\n\\x1b. Supported"),
    ({"input": ["a", 7]}, "Invalid 'input[1]': expected a string as the first is, not a token id."),
    ({"input": {"a": 1}}, "Invalid 'input': expected a string or token array."),
    ({"input": ["a"] * 21}, "Invalid 'input': array length must be 20 or less."),
    (UNCUT | {"input": LONG}, "Invalid 'input': maximum context length is 32 tokens."),
    (UNCUT | {"input": ["a", LONG]}, "Invalid 'input[1]': maximum input length is 32 tokens."),
    (
        UNCUT | {"input": LONG},
        "This model's maximum context length is 32 tokens, however you requested 33 tokens.",
    ),
    (
        UNCUT | {"input": LONG},
        'send "truncate": "end", "start", or "chunk" for all of it in parts.',
    ),
    ({"input": [100_256]}, "Invalid 'input': 100256 is not a token id of cl100k_base."),
    ({"input": [[1], [-1]]}, "Invalid 'input[1]': -1 is not a token id of cl100k_base."),
    ({"input": [10**30]}, f"Invalid 'input': {10**30} is not a token id of cl100k_base."),
    ({"input": [9], "model": "textonly"}, "Invalid 'input': this model takes text, not token ids."),
    ({"input": [99], "model": "ids"}, "99 is not a token id of this model, which has 32."),
    ({"input": [9], "model": "ids", "prompt": "a"}, "a prompt does not go with"),
    ({"input": [9], "model": "ids", "chunks": [[0, 1]]}, "chunks are of texts, not of"),
    ({"prompt": LONG, "truncate": "end"}, "Invalid 'input': maximum context length is 32 tokens."),
    (
        {"encoding_format": "string"},
        "Invalid value for 'encoding_format' = string. Supported values: ['float', 'base64'].",
    ),
    (
        {"dimensions": 17},
        "= 17. Must be less than or equal to 16. Supported values: [4, 8, 16].",
    ),
    ({"dimensions": 0}, "Invalid value for 'dimensions' = 0. Must be greater than 0."),
    ({"dimensions": 5}, "Invalid value for 'dimensions' = 5. Supported values: [4, 8, 16]."),
    ({"dimensions": "abc"}, "'abc' is not of type 'integer' - 'dimensions'"),
    ({"dimensions": 8, "model": "ids"}, "This model does not support specifying dimensions."),
    ({"dimensions": 17, "model": "ids"}, "This model does not support specifying dimensions. Its"),
    ({"prompt_name": "x"}, "Invalid value for 'prompt_name' = x. Supported values: ['class"),
    ({"input_type": "x"}, "Invalid value for 'input_type' = x. Supported values: ["),
    ({"truncate": "x"}, "Invalid value for 'truncate' = x. Supported values: ['error', 'end'"),
    ({"chunks": [[0, 0]]}, "Invalid 'chunks': [0, 0] is no part of the 5 characters of 'input'."),
    ({"chunks": [[0, 6]]}, "Invalid 'chunks': [0, 6] is no part of the 5 characters of 'input'."),
    ({"chunks": [[0, 5], [1, 5]]}, "Invalid 'chunks': in [1, 5] of 'input' begins no token."),
    ({"chunking": {"size": 2, "overlap": 2}}, "Invalid 'chunking': `size` is at least 1"),
    ({"chunking": {"size": 2}, "input": LONG, "truncate": "end"}, "maximum context length is 32"),
    ({"chunking": {"size": 2}, "model": "cls"}, "Late chunking needs a model with mean pooling"),
]


@pytest.mark.parametrize(("fields", "said"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_what_is_wrong_is_said_in_openais_words(
    server: TestClient, fields: dict[str, object], said: str
) -> None:
    body = {"model": "org/tiny", "input": "hello"} | fields
    shaped(server.post("/v1/embeddings", json=body), 400, said)


@pytest.mark.parametrize("path", sorted(set(EMBEDDINGS) - set(NAMED)))
def test_it_is_said_alike_on_all_of_openais_paths(server: TestClient, path: str) -> None:
    shaped(server.post(path, json={"input": "a"}), 400, "you must provide a model parameter")
    shaped(server.post(path, json={"model": "org/tiny"}), 400, "Please submit an `input`.")


@pytest.mark.parametrize("path", NAMED)
def test_where_the_path_names_the_model_the_body_need_not(server: TestClient, path: str) -> None:
    shaped(server.post(path, json={"model": 7}), 400, "Please submit an `input`.")


DIALECTS: list[tuple[str, dict[str, object], str]] = [
    ("/api/embed", {"input": [1]}, "Invalid 'input[0]': expected a string, not a whole number."),
    ("/api/embed", {"input": ["a"] * 21}, "Invalid 'input': array length must be 20 or less."),
    ("/api/embed", {"input": LONG, "truncate": False}, "Invalid 'input': maximum context length"),
    ("/api/embed", {"input": "a", "dimensions": 99}, "Invalid value for 'dimensions' = 99."),
    ("/api/embeddings", {"prompt": 1}, "Invalid 'prompt': expected a string or null, not"),
    ("/api/show", {}, "you must provide a model parameter"),
    ("/embed", {"inputs": [1]}, "Invalid 'inputs[0]': expected a string, not a whole number."),
    ("/embed", {"inputs": []}, "Invalid 'inputs': input cannot be an empty array."),
    ("/embed", {"inputs": LONG}, "Invalid 'inputs': maximum context length is 32 tokens."),
    ("/embed", {"inputs": LONG}, 'embedded all the same, send "truncate": true.'),
    ("/", {"inputs": ["a", LONG]}, "Invalid 'inputs[1]': maximum input length is 32 tokens."),
    ("/embed", {"inputs": "a", "normalize": False}, "this model's vectors have length 1"),
    ("/embed", {"inputs": "a", "prompt_name": "x"}, "Invalid value for 'prompt_name' = x."),
    ("/tokenize", {"inputs": [""]}, "Invalid 'inputs[0]': input cannot be an empty string."),
    ("/v2/embed", {"images": ["x"]}, "Please submit `texts`."),
    (
        "/v2/embed",
        {"texts": ["a"], "truncate": "x"},
        "Invalid value for 'truncate' = x. Supported values: ['NONE', 'START', 'END'].",
    ),
    ("/v2/embed", {"texts": ["a", LONG], "truncate": "NONE"}, "Invalid 'texts[1]': maximum input"),
    ("/v2/embed", {"texts": [LONG], "truncate": "NONE"}, 'send "truncate": "END".'),
    ("/v2/embed", {"texts": [""]}, "Invalid 'texts[0]': input cannot be an empty string."),
    (
        "/v2/embed",
        {"inputs": [{"content": [{"type": "text", "text": t}]} for t in ("a", LONG)]}
        | {"truncate": "NONE"},
        "Invalid 'inputs[1]': maximum input length is 32 tokens.",
    ),
    ("/v2/embed", {"texts": ["a"], "output_dimension": 99}, "'output_dimension' = 99."),
    (
        "/v2/embed",
        {"texts": ["a"], "embedding_types": ["x"]},
        "Invalid value for 'embedding_types[0]' =",
    ),
]


@pytest.mark.parametrize(("path", "fields", "said"), DIALECTS)
def test_other_dialects_are_refused_in_their_shape_by_their_fields(
    server: TestClient, path: str, fields: dict[str, object], said: str
) -> None:
    model = {} if path == "/api/show" else {"model": "org/tiny"}
    shaped(server.post(path, json=model | fields), 400, said)


def test_tei_is_told_what_sort_of_error_it_is(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "bare")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    write_json(folder / "tokenizer.json", tokenizer | {"post_processor": None})
    (tmp_path / "models.toml").write_text("[models.tiny]\npath = 'bare'\n")
    with serve(models=tmp_path / "models.toml") as client:
        for inputs, kind in (([], "Empty"), ("", "Empty"), (" ", "Tokenizer"), (7, "Validation")):
            answer = client.post("/embed", json={"inputs": inputs})
            assert (answer.status_code, answer.json()["error_type"]) == (400, kind)


def test_all_inputs_together_may_be_too_long(server: TestClient) -> None:
    body = {"model": "org/tiny", "input": ["a " * 29] * 3}
    said = "Requested 93 tokens, max 90 tokens per request"
    kind = "max_tokens_per_request"
    shaped(server.post("/v1/embeddings", json=body), 400, said, kind=kind, code=kind)
    body["chunking"] = {"size": 5}
    shaped(server.post("/v1/embeddings", json=body), 400, said, kind=kind, code=kind)


def test_a_text_too_long_is_named_by_its_place_in_a_long_request(client: TestClient) -> None:
    texts = ["a"] * 200
    texts[170] = LONG
    answer = client.post("/v1/embeddings", json=UNCUT | {"model": "embed", "input": texts})
    shaped(answer, 400, "Invalid 'input[170]'")


def test_errors_are_json_whatever_is_in_them(server: TestClient) -> None:
    body = {"model": 'a"\\ü\U0001f600', "input": "a"}
    answer = server.post("/v1/embeddings", content=json.dumps(body))
    shaped(answer, 404, body["model"], code="model_not_found")
