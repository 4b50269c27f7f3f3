"""The wire format: what is read, how it is refused, and that numbers survive the trip."""

import asyncio
import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embedsvc.errors import BadRequest
from embedsvc.http.answers import write_embeddings, write_rows
from embedsvc.http.schema import read_request
from embedsvc.quantize import DTYPES
from embedsvc.texts.requests import Chunking, EncodingFormat


def read(**fields: object):
    return read_request(json.dumps({"model": "m", "input": "x"} | fields).encode())


def answer(vectors: np.ndarray, encoding_format: EncodingFormat) -> bytes:
    writing = write_embeddings(vectors, model='m"1', tokens=9, encoding_format=encoding_format)
    return b"".join(asyncio.run(writing))


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20))
def test_strings_are_read_as_they_are(texts: list[str]) -> None:
    body = json.dumps({"model": "m", "input": texts}, ensure_ascii=False)
    try:
        encoded = body.encode()
    except UnicodeEncodeError:  # half a surrogate pair is not text
        return
    assert read_request(encoded).inputs == texts


def test_a_string_is_one_input() -> None:
    assert read(input="hello").inputs == ["hello"]
    assert read(input=" ").inputs == [" "]


@given(st.lists(st.lists(st.integers(0, 10**12), min_size=1), min_size=1, max_size=9))
def test_lists_of_token_ids_are_read_as_they_are(ids: list[list[int]]) -> None:
    assert read(input=ids).inputs == ids
    assert read(input=ids[0]).inputs == ids[:1]  # a flat list is one input


def test_the_model_in_the_path_wins_and_the_body_may_lack_it() -> None:
    for sent in ({"input": "a"}, {"input": "a", "model": "b"}, {"input": "a", "model": None}):
        assert read_request(json.dumps(sent).encode(), model="m").model == "m"
    with pytest.raises(BadRequest, match="Please submit an `input`"):
        read_request(b"{}", model="m")


def test_extensions_are_read() -> None:
    request = read(truncate=True, input_type="query", embedding_types=["int8"], dimensions=4)
    assert (request.truncate, request.input_type, request.dtypes) == ("end", "query", ["int8"])
    assert read(truncate=False).truncate == "error"
    assert read(output_dtype="binary").dtypes == "binary"
    assert read(chunking={"size": 5}).chunks == Chunking(5)
    assert read(input="abc", chunks=[[0, 1], [1, 3]]).chunks == [[(0, 1), (1, 3)]]
    assert read(input=["abc"], chunks=[[[0, 3]]]).chunks == [[(0, 3)]]


def test_null_and_unknown_fields_are_as_good_as_absent() -> None:
    fields = ("encoding_format", "dimensions", "user", "input_type", "prompt_name", "prompt")
    more = ("truncate", "chunks", "chunking", "output_dtype", "embedding_types")
    assert read(**dict.fromkeys((*fields, *more)), drop_params=True, task="x") == read()


@given(arrays.arrays(np.float32, (3, 7), elements=st.floats(width=32, allow_nan=False)))
def test_floats_read_back_to_the_same_float32(vectors: np.ndarray) -> None:
    vectors = np.where(np.isfinite(vectors), vectors, 0)
    body = answer(vectors, "float")
    read = json.loads(body)
    found = np.array([row["embedding"] for row in read["data"]], dtype=np.float32)
    assert found.tobytes() == vectors.tobytes()
    assert read["model"] == 'm"1'
    assert read["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert [row["index"] for row in read["data"]] == [0, 1, 2]


def test_floats_are_written_in_few_digits() -> None:
    body = answer(np.array([[0.1]], "f"), "float")
    assert b'"embedding":[0.1]' in body


def test_base64_is_of_little_endian_float32() -> None:
    vectors = np.arange(8, dtype=np.float32).reshape(2, 4)
    body = answer(vectors, "base64")
    rows = [base64.b64decode(row["embedding"], validate=True) for row in json.loads(body)["data"]]
    assert np.array_equal(np.frombuffer(b"".join(rows), "<f4").reshape(2, 4), vectors)


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_types_are_written_as_numbers_and_as_base64_of_their_bytes(dtype) -> None:
    vectors = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)
    plain, packed = (
        json.loads(b"[" + write_rows(vectors, encoding_format=form, dtypes=dtype) + b"]")
        for form in ("float", "base64")
    )
    kind = {"float": "<f4", "int8": "i1", "binary": "i1"}.get(dtype, "u1")
    for row, text in zip(plain, packed, strict=True):
        values = np.frombuffer(base64.b64decode(text["embedding"]), kind)
        assert values.tolist() == np.array(row["embedding"], kind).tolist()
    both = json.loads(b"[" + write_rows(vectors, dtypes=[dtype, "float"]) + b"]")
    assert both[1]["embedding"][dtype] == plain[1]["embedding"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"null", b'{"model": 7}', b'{"model": "\xff"}', b'{"input":' * 9999],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest, match="We could not parse the JSON body of your request"):
        read_request(body)


def test_half_a_surrogate_pair_is_refused_or_read_but_never_a_crash() -> None:
    with pytest.raises(BadRequest):
        read_request(rb'{"model": "m", "input": "\ud800"}')


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": None}, "you must provide a model parameter"),
        ({"model": None, "input": []}, "you must provide a model parameter"),
        ({"input": None}, "Please submit an `input`."),
        ({"input": ""}, "Invalid 'input': input cannot be an empty string."),
        ({"input": ["a", ""]}, "Invalid 'input[1]': input cannot be an empty string."),
        ({"input": []}, "Invalid 'input': input cannot be an empty array."),
        ({"input": ["a"] * 2049}, "Invalid 'input': array length must be 2048 or less."),
        ({"input": 7}, "Invalid 'input': expected a string or token array."),
        ({"input": ["a", 7]}, "Invalid 'input': expected a string or token array."),
        ({"input": [1, "a"]}, "Invalid 'input': expected a string or token array."),
        ({"input": [[1], "a"]}, "Invalid 'input': expected a string or token array."),
        ({"input": [[1], [2.5]]}, "Invalid 'input': expected a string or token array."),
        ({"input": [True]}, "Invalid 'input': expected a string or token array."),
        ({"input": [[1], []]}, "Invalid 'input[1]': input cannot be an empty array."),
        ({"input": {"a": 1}}, "Invalid 'input': expected a string or token array."),
        (
            {"encoding_format": "string"},
            "Invalid value for 'encoding_format' = string. Supported values: ['float', 'base64'].",
        ),
        (
            {"encoding_format": 1},
            "Invalid value for 'encoding_format' = 1. Supported values: ['float', 'base64'].",
        ),
        ({"dimensions": "abc"}, "'abc' is not of type 'integer' - 'dimensions'"),
        ({"dimensions": 1.5}, "1.5 is not of type 'integer' - 'dimensions'"),
        (
            {"truncate": "left"},
            (
                "Invalid value for 'truncate' = left. "
                "Supported values: ['error', 'end', 'start', 'chunk']."
            ),
        ),
        (
            {"output_dtype": "int4"},
            (
                "Invalid value for 'output_dtype' = int4. "
                "Supported values: ['float', 'int8', 'uint8', 'binary', 'ubinary']."
            ),
        ),
        ({"prompt": 7}, "Invalid 'prompt': expected a string or null, not a whole number."),
        ({"chunking": {}}, "Invalid 'chunking': Object missing required field `size`."),
        (
            {"chunks": [[0, 1]], "chunking": {"size": 2}},
            "Invalid 'chunks': give either `chunks` or `chunking`.",
        ),
        (
            {"chunks": [[0, 1, 2]]},
            "Invalid 'chunks': expected [start, end] of each chunk, in a list for each input.",
        ),
        (
            {"input": ["a", "b"], "chunks": [[[0, 1]]]},
            "Invalid 'chunks': expected one or more chunks for each of 2 inputs.",
        ),
    ],
)
def test_a_wrong_field_is_refused_in_openais_words(fields: dict[str, object], said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read(**fields)
    assert caught.value.message == said
