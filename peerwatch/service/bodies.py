"""Bodies of requests, decoded by msgspec types, and routes that FastAPI adds little to."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from inspect import signature
from math import isfinite
from typing import Any, Final, TypeVar

import msgspec
from fastapi import Request
from fastapi.routing import APIRoute

from peerwatch.service.answers import JSON
from peerwatch.service.problems import Problem

Body = TypeVar("Body")
WORDS: Final = {
    "int": "an integer", "float": "a number", "str": "a string", "bool": "true or false", "null": "null",
    "array": "an array", "object": "an object",
}  # fmt: skip
"""How msgspec's names of types are put."""
KINDS: Final = {"int": int, "float": float, "str": str, "bool": bool, "null": type(None), "array": list, "object": dict}
"""What JSON values of these types are decoded to."""
UNNAMED: Final = "[...]"
"""What msgspec writes for the key of a mapping."""


class DirectRoute(APIRoute):
    """A route whose endpoint is called directly if it takes the request alone.

    Then there is nothing for FastAPI to solve, which otherwise takes as long as everything else about a small request.
    """

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Return the endpoint, or FastAPI's own handler."""
        if [*signature(self.endpoint).parameters] == ["request"]:
            return self.endpoint
        return super().get_route_handler()


def takes(kind: Any) -> dict[str, Any]:
    """What FastAPI's `openapi_extra` takes for a route that takes a body of this type."""
    (schema,), components = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}, "x-components": components}


async def body_of(request: Request, kind: type[Body]) -> Body:
    """The body of a request as a value of a type.

    Raises:
        Problem: it is not JSON, or of another shape; `pointer` (RFC 6901) says where.
    """
    body = await request.body()
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        if "Expected `int`, got `float`" in str(error):
            with suppress(ValueError, RecursionError):
                return msgspec.convert(json.loads(body, parse_float=_number, parse_constant=_number), kind)
        raise _misshapen(str(error), body) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
    except RecursionError:
        raise Problem(400, "the body is nested too deep") from None


def _number(text: str) -> float:
    """The number in a text, as an integer if it is one: to JSON 2.0 is one, to msgspec it is not.

    Raises:
        ValueError: it is too large, or no number.
    """
    value = float(text)
    if not isfinite(value):
        raise ValueError(text)
    return int(value) if value.is_integer() else value


def _misshapen(error: str, body: bytes) -> Problem:
    message, _, path = error.partition(" - at `")
    steps: list[str | int] = [
        int(step[1:-1]) if step[1:-1].isdigit() else step.removeprefix(".")
        for step in re.findall(r"\[\d+\]|\[\.\.\.\]|\.[^.\[`]+", path.rstrip("`"))
    ]
    got = re.search(r"got `(\w+)`", message)
    with suppress(ValueError, RecursionError):  # behind the mistake it may be no JSON at all
        value: Any = json.loads(body)
        for place, step in enumerate(steps):
            if step == UNNAMED:
                steps[place] = _key_of(value, got[1] if got else "")
            value = value[steps[place]]
    steps = steps[: steps.index(UNNAMED)] if UNNAMED in steps else steps
    pointer = "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)
    said = re.sub(r"`(\w+)`", lambda found: WORDS.get(found[1], f'"{found[1]}"'), message)
    return Problem(422, f"{pointer or 'the body'}: {said[:1].lower()}{said[1:]}", pointer=pointer)


def _key_of(value: dict[str, Any], got: str) -> str:
    """The key whose value is not as it should be: the first one of the wrong type, or too large for a number."""
    for key, each in value.items():
        if (got and type(each) is KINDS.get(got)) or (not got and not _is_number(each)):
            return key
    return next(iter(value), "")


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and abs(float(value)) < float("inf")
    except OverflowError:
        return False
