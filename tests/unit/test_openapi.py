"""The OpenAPI document is true, and stays within what code generators of phones digest."""

import re
from typing import Any, cast

import pytest

from broker.api.openapi import document
from broker.app import CLIENT_ROUTES

DOCUMENT = document()
VERBS = {"get", "put", "post", "delete", "patch"}


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    paths: dict[str, dict[str, Any]] = DOCUMENT["paths"]
    return {
        (verb.upper(), path): found for path, item in paths.items() for verb, found in item.items() if verb in VERBS
    }


def nodes(tree: object) -> list[dict[str, Any]]:
    """Every object in the document."""
    if isinstance(tree, dict):
        found = cast("dict[str, Any]", tree)
        return [found, *(node for value in found.values() for node in nodes(value))]
    return [node for value in cast("list[object]", tree) for node in nodes(value)] if isinstance(tree, list) else []


def test_every_route_is_described_and_no_other() -> None:
    """Methods and paths of the document are those of the application (HEAD goes with its GET)."""
    served: set[tuple[str, str]] = set()
    for handler in CLIENT_ROUTES:
        for path in handler.paths:
            plain = re.sub(r"\{([a-z_]+):[a-z]+\}", r"{\1}", path)
            served |= {(str(method), plain) for method in handler.http_methods if method != "HEAD"}
    assert set(operations()) == served


def test_operations_have_names() -> None:
    """Generated clients call their functions by operationId: explicit, unique, camelCase."""
    names = [found["operationId"] for found in operations().values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+([A-Z][a-z]+)*", name) for name in names)
    assert {"createUser", "putJob", "getJob", "deleteJob", "listJobs", "getOutput", "getReceipt"} <= set(names)


@pytest.mark.parametrize("word", ["oneOf", "anyOf", "allOf", "nullable", "default", "enum", "const", "prefixItems"])
def test_what_generators_choke_on_is_absent(word: str) -> None:
    """No unions, no closed enums, no defaults (`default` may only be the name of a response)."""
    allowed = [found["responses"] for found in operations().values()] if word == "default" else []
    assert not [node for node in nodes(DOCUMENT) if word in node and node not in allowed]


def test_no_type_is_null_or_a_list() -> None:
    """What is absent is absent."""
    kinds = [node["type"] for node in nodes(DOCUMENT) if "type" in node]
    kinds = [kind for kind in kinds if not isinstance(kind, dict)]  # a property of this name
    assert set(kinds) == {"object", "array", "string", "integer", "number", "boolean", "http"}


def test_every_reference_leads_somewhere() -> None:
    """A $ref names a schema of the document, and every schema is used."""
    named = {node["$ref"].removeprefix("#/components/schemas/") for node in nodes(DOCUMENT) if "$ref" in node}
    assert named == set(DOCUMENT["components"]["schemas"])


def test_every_operation_that_can_refuse_says_so() -> None:
    """Everything that needs a token describes 401, and every answer that is no success is a problem."""
    for found in operations().values():
        responses: dict[str, Any] = found["responses"]
        assert ("401" in responses) == ("security" in found)
        for status, answer in responses.items():
            if status == "default" or status >= "400":
                assert list(answer["content"]) == ["application/problem+json"]


def test_the_upload_is_a_file() -> None:
    """The body of a PUT is binary, and its parameters hold no free text in the URL."""
    put = operations()["PUT", "/v1/jobs/{job_id}"]
    assert put["requestBody"]["content"] == {"image/*": {"schema": {"type": "string", "format": "binary"}}}
    in_query = {found["name"] for found in put["parameters"] if found["in"] == "query"}
    assert in_query == {"operation", "scale", "quality", "filter", "strength", "count", "size", "duration_s"}


def test_times_are_times() -> None:
    """Generators make dates of what is called date-time."""
    job = DOCUMENT["components"]["schemas"]["Job"]["properties"]
    assert {job[name]["format"] for name in ("created_at", "finalized_at", "expires_at")} == {"date-time"}
