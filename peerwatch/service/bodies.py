"""Bodies of requests, decoded by msgspec types."""

from typing import Any, TypeVar

import msgspec
from fastapi import Request

from peerwatch.service.answers import JSON
from peerwatch.service.problems import Problem

Body = TypeVar("Body")


def takes(kind: Any) -> dict[str, Any]:
    """What FastAPI's `openapi_extra` takes for a route that takes a body of this type."""
    (schema,), components = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}, "x-components": components}


async def body_of(request: Request, kind: type[Body]) -> Body:
    """The body of a request as a value of a type.

    Raises:
        Problem: it is not JSON, or of another shape.
    """
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `")
        raise Problem(422, message, pointer=place.rstrip("`") or "$") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
