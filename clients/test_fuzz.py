"""schemathesis: whatever fits, or misses, the server's own description of its API.

No answer is a 5xx, and every answer is what is described, errors too: each dialect has its own.
"""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from clients.support import MODEL

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_anything(server: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{server}/openapi.json")
    schema.config.max_stream_events = 3  # one of the streams has an event a second, for ever
    answered: dict[int, int] = {}
    operations = [found.ok() for found in schema.get_all_operations()]
    for operation in operations:
        told = operation.definition.raw
        query = [each for each in told.get("parameters", ()) if each["in"] == "query"]
        if mode is GenerationMode.NEGATIVE and "requestBody" not in told and not query:
            continue  # any text may be part of a path, so there is nothing that could be wrong

        @settings(
            max_examples=60,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case) -> None:
            body = case.body
            if isinstance(body, dict):
                # Without a name some routes take a model that would have to be downloaded.
                name = body.get("model")
                if name is None or (isinstance(name, str) and len(name) % 2):
                    body["model"] = MODEL
            answer = case.call(base_url=server, timeout=30)
            answered[answer.status_code] = answered.get(answer.status_code, 0) + 1
            case.validate_response(answer, checks=CHECKS)
            if answer.status_code >= 400:
                said = answer.json()
                assert said.get("error") or said.get("message") or said.get("detail")

        check()
    assert len(operations) > 20
    assert sum(answered.values()) > 400
    assert answered[400] > 20  # invalid requests were sent too
    if mode is GenerationMode.POSITIVE:
        assert answered[200] > 50
