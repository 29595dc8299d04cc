"""Bodies of requests: what is decoded, and how a mistake is named."""

import json
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import FastAPI, Request, Response
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples

from peerwatch.service.answers import JSON, answered
from peerwatch.service.bodies import DirectRoute, body_of, takes
from peerwatch.service.problems import answer_with_problems


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    """Some fields."""

    whole: int
    text: str | None = None


class Posted(msgspec.Struct, forbid_unknown_fields=True):
    """A body."""

    rows: list[dict[str, float]] = []
    inner: Inner | None = None
    more: dict[str, Any] = {}


app = FastAPI()
answer_with_problems(app)


async def give_back(request: Request) -> Response:
    """What was understood of a body."""
    return Response(msgspec.json.encode(await body_of(request, Posted)), media_type=JSON)


async def with_path(request: Request, number: int) -> Response:
    """A route that FastAPI has something to solve for."""
    return Response(msgspec.json.encode([number, await body_of(request, int)]), media_type=JSON)


app.router.route_class = DirectRoute
app.post("/", openapi_extra=takes(Posted), responses=answered(Posted, 400, 422))(give_back)
app.post("/{number}")(with_path)


async def post(content: bytes, path: str = "/") -> httpx.Response:
    """Post a body."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        return await client.post(path, content=content)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False) | PLAIN, max_size=3), max_size=3)
FIELDS = {
    "rows": ROWS | PLAIN,
    "inner": st.fixed_dictionaries({}, optional={"whole": st.integers() | PLAIN, "text": st.text() | PLAIN}) | PLAIN,
    "more": st.dictionaries(st.text(max_size=3), PLAIN, max_size=3) | PLAIN,
}
BODIES = PLAIN | st.fixed_dictionaries({}, optional={**FIELDS, "unknown": PLAIN})


def at(value: Any, pointer: str) -> Any:
    """What a pointer (RFC 6901) points to."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


@settings(max_examples=examples(300))
@given(BODIES, st.booleans())
async def test_a_body_is_understood_or_the_mistake_is_pointed_to(body: Any, pretty: bool) -> None:
    """Whatever JSON it is: what comes back is what was sent, or a problem whose pointer leads to a value of it."""
    found = await post(json.dumps(body, indent=1 if pretty else None).encode())
    if found.status_code == 200:
        assert {**msgspec.to_builtins(Posted()), **body} == {
            **found.json(), **({"inner": body["inner"]} if "inner" in body else {})
        }  # fmt: skip
    else:
        assert found.headers["content-type"] == "application/problem+json"
        problem = found.json()
        assert found.status_code == problem["status"]
        if found.status_code == 422:
            at(body, problem["pointer"])
            assert problem["detail"].startswith(problem["pointer"] or "the body")
        else:
            assert problem["detail"].startswith("the body is not JSON")


@settings(max_examples=examples(300))
@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,truefalsn01.eE-+ ', max_size=30).map(str.encode))
async def test_what_is_no_json_is_a_problem(content: bytes) -> None:
    """Never an error of the service."""
    found = await post(content)
    assert found.status_code in {200, 400, 422}


@pytest.mark.parametrize(
    ("content", "status", "detail", "pointer"),
    [
        (b"", 400, "the body is not JSON: Input data was truncated", None),
        (b'{"rows": [{"a": NaN}]}', 400, "the body is not JSON: JSON is malformed: invalid character (byte 16)", None),
        (b'{"rows": [{"a": Infinity}]}', 400, "the body is not JSON: JSON is malformed: invalid character (byte 16)",
         None),
        (b'{"more": {"a": ' + b"[" * 100_000, 400, "the body is nested too deep", None),
        (b"[]", 422, "the body: expected an object, got an array", ""),
        (b'{"x": 1}', 422, 'the body: object contains unknown field "x"', ""),
        (b'{"inner": {}}', 422, '/inner: object missing required field "whole"', "/inner"),
        (b'{"inner": {"whole": false}}', 422, "/inner/whole: expected an integer, got true or false", "/inner/whole"),
        (b'{"rows": [{"a": 1}, {"b": 1, "c/d~": false}]}', 422,
         "/rows/1/c~1d~0: expected a number, got true or false", "/rows/1/c~1d~0"),
        (b'{"rows": [{"a": 1, "b": 1e400}]}', 422, "/rows/0/b: number out of range", "/rows/0/b"),
        (b'{"rows": [{"a": "x"}', 422, "/rows/0: expected a number, got a string", "/rows/0"),
    ],
)  # fmt: skip
async def test_each_mistake_is_a_sentence(content: bytes, status: int, detail: str, pointer: str | None) -> None:
    """With a pointer to the value where there is one."""
    problem = (await post(content)).json()
    assert (problem["status"], problem["detail"], problem.get("pointer")) == (status, detail, pointer)


async def test_a_whole_number_is_an_integer_however_it_is_written() -> None:
    """As JSON's own schemas have it; nothing else is."""
    assert (await post(b'{"inner": {"whole": 2e3}, "rows": [{"a": 1.0, "b": 2.5}]}')).json()["inner"]["whole"] == 2000
    for content in (b'{"inner": {"whole": 2.5}}', b'{"inner": {"whole": 2.0}, "rows": [{"a": 1e400}]}'):
        assert (await post(content)).status_code == 422


async def test_a_route_with_parameters_is_still_solved() -> None:
    """Only an endpoint that takes the request alone is called directly."""
    assert (await post(b"3", "/4")).json() == [4, 3]
    assert (await post(b"3", "/x")).status_code == 422
