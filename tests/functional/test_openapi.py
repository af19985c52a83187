"""The API describes itself, truly."""
import re

import pytest
import yaml
from openapi_spec_validator import validate

ROUTES = {
    ("GET", "/health"), ("POST", "/v1/sandboxes"), ("GET", "/v1/sandboxes"), ("GET", "/v1/sandboxes/{id}"),
    ("DELETE", "/v1/sandboxes/{id}"), ("POST", "/v1/sandboxes/{id}/exec"), ("GET", "/v1/sandboxes/{id}/exec/stream"),
    ("POST", "/v1/sandboxes/{id}/ping"), ("POST", "/v1/sandboxes/{id}/pause"), ("POST", "/v1/sandboxes/{id}/resume"),
    ("POST", "/v1/sandboxes/{id}/files/write"), ("POST", "/v1/sandboxes/{id}/files/read"),
    ("GET", "/v1/sandboxes/{id}/processes"), ("DELETE", "/v1/sandboxes/{id}/processes/{id}"),
    ("GET", "/v1/sandboxes/{id}/processes/{id}/stream"), ("GET", "/v1/sandboxes/{id}/metrics"),
    ("POST", "/v1/sandboxes/{id}/files/list"), ("POST", "/v1/sandboxes/{id}/files/mkdir"),
    ("POST", "/v1/sandboxes/{id}/files/remove"), ("GET", "/v1/sandboxes/{id}/pty"),
    ("POST", "/v1/sandboxes/{id}/files/stream/write"), ("POST", "/v1/sandboxes/{id}/files/stream/read"),
}


@pytest.fixture(scope="module")
def document(system):
    response = system.api.expect(200, "GET", "/openapi.yaml")
    return yaml.safe_load(response.text)


def described(document):
    found = set()
    for path, item in document["paths"].items():
        for method in item:
            if method in ("get", "put", "post", "delete", "patch"):
                found.add((method.upper(), re.sub(r"\{\w+\}", "{id}", path)))
    return found


def test_it_is_valid(document):
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_every_route_is_described(document):
    missing = ROUTES - described(document)
    assert not missing, f"not in openapi.yaml: {sorted(missing)}"


def test_every_described_route_exists(document, api):
    for method, path in sorted(described(document)):
        response = api.request(method, path.replace("{id}", "sb-aaaaaaaaaaaaaaaaaaaaaaaaaa"))
        assert response.status_code != 405, f"{method} {path}"
        if response.status_code == 404:
            assert "no such route" not in response.text, f"{method} {path}"
        if response.status_code == 201:
            api.destroy(response.json()["id"])


def test_it_tells_the_ranges(document):
    text = yaml.safe_dump(document)
    for number in ("65536", "31536000"):
        assert number in text
    assert "apiKey" in text and "X-API-Key" in text


def test_answers_fit_their_schema(document, api, shared):
    """The sandbox object has the fields described, and no others."""
    schemas = document["components"]["schemas"]
    schema = schemas.get("Sandbox")
    assert schema, f"schemas: {sorted(schemas)}"
    sandbox = api.get(shared)
    assert set(sandbox) <= set(schema["properties"]), set(sandbox) - set(schema["properties"])
    assert set(schema.get("required", [])) <= set(sandbox)


def test_docs_page(api):
    response = api.expect(200, "GET", "/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "/v1/sandboxes" in response.text or "openapi.yaml" in response.text


def test_health(api):
    assert api.expect(200, "GET", "/health").json()["status"] == "ok"
