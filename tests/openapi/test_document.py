"""The OpenAPI document says what is so: its examples are true, its names are stable, its numbers have bounds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from jivs.domain.run import RunState
from jivs.testing.servers import PostgresServer
from jivs.testing.service import ServiceProcess
from tests.openapi.story import EXAMPLES, Story

Schema = dict[str, Any]
NAMES = """
logIn refreshSession logOut getCurrentUser listUsers addUser getUser changeUser removeUser changePassword listSources addSource
getSource changeSource removeSource turnKeys trySource listSourceTables listExtractions addExtraction tryConnection
changeManyExtractions getExtraction changeExtraction removeExtraction startExtraction stopExtraction pauseExtraction
resumeExtraction getExtractionStatistics listExtractionLogs listRuns getRun listPartitions listSchedules addSchedule getSchedule changeSchedule
removeSchedule previewSchedule listArchives getArchive getManifest listManifests verifyArchive queryArchive listArchiveFiles
downloadFile streamEvents getPreferences putPreferences listAuditEntries verifyAuditTrail getHealth getLiveness getReadiness
getInfo getMetrics
"""
"""Names of operations are names of functions in every generated client: none changes, new ones are added."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def document(service: ServiceProcess) -> Schema:
    answer = httpx.get(f"{service.url}/v3/api-docs")
    assert answer.status_code == 200
    return answer.json()


@pytest.fixture(scope="module")
def story(service: ServiceProcess, document: Schema, postgres: PostgresServer) -> Story:
    """All examples, sent in their order; the source is a real database."""
    url = postgres.create("story")
    with psycopg.connect(url) as connection:
        connection.execute("create table orders (id bigint primary key, status text not null, total numeric(10, 2))")
        connection.execute(
            "insert into orders select n, case when n % 11 = 0 then 'open' else 'paid' end, n * 1.5 from generate_series(1, 22) n"
        )
    with httpx.Client(base_url=service.url, timeout=60) as client:
        told = Story(client, document, password=service.password, source=url)
        told.all()
        return told


def operations(document: Schema) -> Iterator[tuple[str, str, Schema]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def resolved(document: Schema, value: Schema) -> Schema:
    while "$ref" in value:
        found: Any = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        value = found
    return value


def validator(document: Schema, schema: Schema) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": document["components"]}, format_checker=FormatChecker())


def responses(document: Schema, operation: Schema) -> Iterator[tuple[str, Schema]]:
    for status, response in operation["responses"].items():
        yield status, resolved(document, response)


def test_it_is_one_of_openapi_3_1(document: Schema) -> None:
    assert document["openapi"].startswith("3.1.")
    validate(document, cls=OpenAPIV31SpecValidator)


def test_names_of_operations_are_stable(document: Schema) -> None:
    assert [operation["operationId"] for _, _, operation in operations(document)] == NAMES.split()


def test_every_operation_is_explained(document: Schema) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    for _, path, operation in operations(document):
        assert set(operation["tags"]) <= tags, path
        assert len(operation["tags"]) == 1
        assert operation["summary"] != operation["description"]
        assert operation["description"].endswith(".")
        assert "``" not in operation["description"]


def test_every_example_fits_its_schema(document: Schema) -> None:
    count = 0
    contents: list[Schema] = []
    for _, _, operation in operations(document):
        body = operation.get("requestBody")
        places = (
            [body, *(one for _, one in responses(document, operation))]
            if body
            else [one for _, one in responses(document, operation)]
        )
        contents += [content for place in places for content in place.get("content", {}).values()]
        for parameter in operation.get("parameters", ()):
            known = [parameter["example"]] if "example" in parameter else parameter["schema"].get("examples", [])
            contents += [{"schema": parameter["schema"], "example": example} for example in known]
    for header in document["components"]["headers"].values():
        contents.append({"schema": header["schema"], "example": header["example"]})
    for schema in document["components"]["schemas"].values():
        for part in schema.get("properties", {}).values():
            contents += [{"schema": part, "example": example} for example in part.get("examples", ())]
    for content in contents:
        if "example" in content:
            validator(document, content["schema"]).validate(content["example"])
            count += 1
    assert count > 300


def test_every_body_of_json_has_an_example(document: Schema) -> None:
    for _, path, operation in operations(document):
        bodies = [operation.get("requestBody", {}), *(one for _, one in responses(document, operation))]
        for body in bodies:
            content = body.get("content", {})
            kinds = [kind for kind in content if kind.startswith(("application/json", "application/problem"))]
            for kind in kinds:
                if (path, operation["operationId"]) not in {
                    ("/actuator/health", "getHealth"),
                    ("/actuator/health/readiness", "getReadiness"),
                }:
                    assert "example" in content[kind], (path, kind)


def test_every_example_is_true(document: Schema, story: Story) -> None:
    """Each was sent, in the order of the story, and the answer has what the example has."""
    for _, path, operation in operations(document):
        name = operation["operationId"]
        if name == "streamEvents":
            continue  # it has no end
        answer = story.answers[name]
        assert answer.status_code < 300, (name, answer.text)
        response = resolved(document, operation["responses"][str(answer.status_code)])
        for header, meaning in response["headers"].items():
            if resolved(document, meaning)["required"]:
                assert header in answer.headers, (name, header)
        if not answer.content:
            assert "content" not in response, name
            continue
        kind = answer.headers["content-type"].partition(";")[0]
        assert kind in response["content"], (path, kind)
        if kind == "application/json":
            validator(document, response["content"][kind]["schema"]).validate(answer.json())
            assert differences(EXAMPLES[name]["response"], answer.json()) == [], name


def differences(example: Any, real: Any, place: str = "") -> list[str]:
    """Where they do not have the same parts and kinds of values; null stands for anything."""
    if example is None or real is None:
        return []
    if isinstance(example, dict) and isinstance(real, dict):
        if place.rpartition(".")[2] in {"detail", "details", "options"}:
            return []
        if set(example) != set(real):
            return [f"{place}: {sorted(set(example) ^ set(real))}"]
        return [one for key in example for one in differences(example[key], real[key], f"{place}.{key}")]
    if isinstance(example, list) and isinstance(real, list):
        return differences(example[0], real[0], f"{place}[]") if example and real else []
    number = isinstance(example, int | float) and isinstance(real, int | float)
    return [] if type(example) is type(real) or number else [f"{place}: {example!r} and {real!r}"]


def test_every_integer_has_bounds(document: Schema) -> None:
    def walk(value: Any, place: str) -> Iterator[str]:
        if isinstance(value, dict):
            if value.get("type") == "integer" and not ("minimum" in value and "maximum" in value):
                yield place
            for key, part in value.items():
                yield from walk(part, f"{place}/{key}")
        elif isinstance(value, list):
            for number, part in enumerate(value):
                yield from walk(part, f"{place}/{number}")

    assert list(walk(document, "")) == []


def test_states_are_listed(document: Schema) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["RunState"]["enum"] == list(RunState)
    assert schemas["ExtractionOut"]["properties"]["status"]["enum"] == ["NEW", *RunState]


def test_problems_are_what_they_are_said_to_be(document: Schema) -> None:
    for method, path, operation in operations(document):
        found = dict(responses(document, operation))
        own = path.startswith("/api/v1/")
        for status, response in found.items():
            assert response["description"].endswith("."), (path, status)
            assert response["description"] != "Successful Response", (path, status)
            if own and int(status) >= 400:
                assert set(response["content"]) == {"application/problem+json"}, (path, status)
        headers = {
            parameter["name"]: parameter for parameter in operation.get("parameters", ()) if parameter["in"] == "header"
        }
        if own:
            assert ("401" in found) is ("security" in operation) or path.endswith(("/login", "/refresh")), path
            assert "503" in found
            assert ("428" in found) is ("If-Match" in headers), path
        if method == "put" and not path.endswith("/password"):
            assert headers["If-Match"]["required"], path
        if method == "post" and operation["operationId"].startswith(("add", "start")):
            assert "Idempotency-Key" in headers, path
    for status in ("429", "503"):
        for _, _, operation in operations(document):
            response = operation["responses"].get(status, {})
            if "$ref" in response:
                assert "Retry-After" in resolved(document, response)["headers"]


def test_what_no_document_can_say_is_answered_as_it_says(service: ServiceProcess, document: Schema) -> None:
    problem = validator(document, {"$ref": "#/components/schemas/Problem"})
    with httpx.Client(base_url=service.url) as client:
        for method, path, content, status in (
            ("GET", "/nowhere", b"", 404),
            ("GET", "/api/v1/extractions/zero", b"", 404),
            ("DELETE", "/api/v1/extractions", b"", 405),
            ("PUT", "/api/v1/extractions/bulk", b"", 405),
            ("GET", "/api/v1/extractions?name=" + "x" * (40 << 10), b"", 431),
            ("POST", "/api/v1/auth/login", b"{", 400),
            ("POST", "/api/v1/auth/login", b"x" * (1 << 20) + b"x", 413),
        ):
            answer = client.request(method, path, content=content, headers={"Content-Type": "application/json"})
            assert answer.status_code == status, (method, path, answer.text)
            assert answer.headers["Content-Type"] == "application/problem+json"
            problem.validate(answer.json())
            assert answer.json()["traceId"] == answer.headers["X-Trace-Id"]
        assert client.delete("/api/v1/extractions").headers["Allow"] == "GET, POST"
        assert client.patch("/api/v1/sources/1").headers["Allow"] == "DELETE, GET, PUT"
        assert client.put("/api/v1/extractions/bulk").headers["Allow"] == "POST"
        body = json.dumps({"username": "admin", "password": "wrong"})
        answer = client.post("/api/v1/auth/login", content=body, headers={"Content-Type": "text/plain"})
        assert (answer.status_code, answer.json()["type"]) == (415, "urn:jivs:problem:unsupported-media-type")
        problem.validate(answer.json())
