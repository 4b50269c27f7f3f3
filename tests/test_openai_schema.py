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
from embedsvc.texts.requests import COMPONENT_TYPES, Chunking, EncodingFormat
from embedsvc.web.dialects.openai_answer import write_embeddings, write_rows
from embedsvc.web.dialects.openai_request import read_request


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


@pytest.mark.parametrize("dtype", COMPONENT_TYPES)
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


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (rb"cut \ud83d", "cut \ufffd"),
        (rb"\ude00 cut", "\ufffd cut"),
        (rb"\ud83d\ude00", "\U0001f600"),
        (rb"\uD83D\uDE00\uDe00\ud83dx", "\U0001f600\ufffd\ufffdx"),
        (rb"\\ud83d \ud83d", "\\ud83d \ufffd"),
        (rb"\\\ud83d\n", "\\\ufffd\n"),
    ],
)
def test_half_a_surrogate_pair_is_read_as_u_fffd(sent: bytes, text: str) -> None:
    for form in (b"%b", b'["fine", "%b"]'):
        quoted = form % (b'"%b"' % sent if form == b"%b" else sent)
        body = b'{"x\\ud83d": "\\udc00", "user": ["%b"], "model": "m", "input": %b}' % (
            sent,
            quoted,
        )
        assert read_request(body).inputs[-1] == text


@pytest.mark.parametrize("number", [b"9" * 5000, b"1e400", b"9" * 4300, b"18446744073709551616"])
def test_numbers_beyond_all_bounds_are_refused_in_few_words(number: bytes) -> None:
    for field in (b"dimensions", b"input", b"chunking"):
        body = b'{"model": "m", "input": "a", "%b": %b}' % (field, number)
        with pytest.raises(BadRequest) as caught:
            read_request(body)
        assert field.decode() in caught.value.message
        assert len(caught.value.message) < 200


def test_of_a_field_that_is_there_twice_the_last_counts() -> None:
    body = b'{"model": "m", "input": "b", "input": ["a"], "dimensions": 4, "dimensions": 8}'
    assert (read_request(body).inputs, read_request(body).dimensions) == (["a"], 8)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "it was truncated"),
        (b'{"model": "m", "input": "a', "it was truncated"),
        (b'{"model": "m", "input": NaN}', "invalid character (byte 24)"),
        (b'{"model": "m", "input": -Infinity}', "invalid character (byte 25)"),
        (b'{"model": "m", "input": "a"} {}', "trailing characters (byte 30)"),
        (b'{"model": "m", "input": "\xc3\x28"}', "byte 25 is not UTF-8"),
        (b'{"model": "m", "input": "\xed\xa0\xbd"}', "byte 25 is not UTF-8"),
        (b'{"a":' * 100_000, "it is nested too deeply"),
        (b"[]", "expected an object, not a list"),
        (b'{"model": 7, "input": "a"}', "'model' is no string"),
    ],
)
def test_what_is_no_json_object_is_said_with_its_place(body: bytes, why: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_request(body)
    assert caught.value.message.endswith(f"was not valid JSON: {why}.)")


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
        (
            {"input": ["a", 7]},
            "Invalid 'input[1]': expected a string as the first is, not a token id.",
        ),
        (
            {"input": [1, 2, "a"]},
            "Invalid 'input[2]': expected a token id as the first is, not a string.",
        ),
        (
            {"input": [[1], "a"]},
            "Invalid 'input[1]': expected a token array as the first is, not a string.",
        ),
        ({"input": ["a", None]}, "Invalid 'input[1]': expected a string or token array, not null."),
        (
            {"input": ["a", {"text": "b"}]},
            "Invalid 'input[1]': expected a string or token array, not an object.",
        ),
        ({"input": [[1], [2.5]]}, "Invalid 'input[1][0]': expected a token id, not a number."),
        ({"input": [[1], [2, ["a"]]]}, "Invalid 'input[1][1]': expected a token id, not a list."),
        ({"input": [[1], [None]]}, "Invalid 'input[1][0]': expected a token id, not null."),
        (
            {"input": [1, 2.0]},
            "Invalid 'input[1]': expected a string or token array, not a number.",
        ),
        (
            {"input": [True]},
            "Invalid 'input[0]': expected a string or token array, not true or false.",
        ),
        ({"input": None, "dimensions": "x"}, "Please submit an `input`."),
        ({"dimensions": 0}, "Invalid value for 'dimensions' = 0. Must be greater than 0."),
        ({"dimensions": -5}, "Invalid value for 'dimensions' = -5. Must be greater than 0."),
        (
            {"dimensions": 65_537},
            "Invalid value for 'dimensions' = 65537. Must be less than or equal to 65536.",
        ),
        (
            {"dimensions": 10**4000},
            f"Invalid value for 'dimensions' = 1{'0' * 63}…. Must be less than or equal to 65536.",
        ),
        ({"dimensions": True}, "true is not of type 'integer' - 'dimensions'"),
        ({"dimensions": [1]}, "[1] is not of type 'integer' - 'dimensions'"),
        (
            {"prompt_name": "x" * 201},
            "Invalid 'prompt_name': expected a string of at most 200 characters.",
        ),
        ({"model": "x" * 201}, "Invalid 'model': expected a string of at most 200 characters."),
        (
            {"truncate": 7},
            (
                "Invalid value for 'truncate' = 7. "
                "Supported values: ['error', 'end', 'start', 'chunk']."
            ),
        ),
        (
            {"embedding_types": ["float", "x' - at `$.model`"]},
            (
                "Invalid value for 'embedding_types[1]' = x' - at `$.model`. "
                "Supported values: ['float', 'int8', 'uint8', 'binary', 'ubinary', 'sparse']."
            ),
        ),
        (
            {"encoding_format": "y" * 9999},
            (
                f"Invalid value for 'encoding_format' = {'y' * 64}…. "
                "Supported values: ['float', 'base64']."
            ),
        ),
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
        ({"chunking": {}}, "Missing required parameter: 'chunking.size'."),
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
