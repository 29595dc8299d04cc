"""Documented answers: the schemas of msgspec types in OpenAPI, and the problems that a route may answer with."""

from http import HTTPStatus
from typing import Any, Final

import msgspec

JSON: Final = "application/json"
ALWAYS: Final = (401, 403, 421, 429)
"""What any route may answer with: see `security.py`."""


def answered(*found: Any) -> dict[int | str, dict[str, Any]]:
    """What FastAPI's `responses` takes: a type is what an answer with the status behind it holds, first with 200.

    A status without a type before it is a problem's.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    kind: Any = None
    for each in found:
        if not isinstance(each, int):
            if kind is not None:
                responses[200] = _holding(kind, "OK")
            kind = each
        elif (kind is not None and each < 300) or (kind is not None and 200 in responses):
            responses[each], kind = _holding(kind, HTTPStatus(each).phrase), None
        else:
            if kind is not None:
                responses[200], kind = _holding(kind, "OK"), None
            responses[each] = _problem(each)
    if kind is not None:
        responses[200] = _holding(kind, "OK")
    return {**{status: _problem(status) for status in ALWAYS if status not in responses}, **responses}


def _holding(kind: Any, description: str) -> dict[str, Any]:
    (schema,), components = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    return {"description": description, "content": {JSON: {"schema": schema}}, "x-components": components}


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": HTTPStatus(status).phrase, "content": {"application/problem+json": {"schema": schema}}}
