"""Every system that messages are read from: each message is read once, in order, from any position."""

from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final

import pytest
from anyio.to_thread import run_sync
from every_system import SOURCES
from strategies import often
from systems import SourceSystem

from peerwatch.connectors import checks
from peerwatch.errors import SourceError, UsageError

LINES: Final = [
    *(b'{"n": %d}' % number for number in range(300)),
    '{"id": "Zo\u00eb \U0001f600"}'.encode(),
    b"x" * (1 << 20),
]
CONTENT: Final = b"".join(line + b"\n" for line in LINES)


@pytest.fixture(params=SOURCES)
def system(request: pytest.FixtureRequest) -> SourceSystem:
    """Each system, its server started, with an empty stream."""
    kind, fixture = SOURCES[request.param]
    system = kind()
    system.server = request.getfixturevalue(fixture)
    system.make()
    return system


async def read(system: SourceSystem, position: Any = None) -> tuple[bytes, Any]:
    """The lines behind a position, and the position at their end."""
    content = b""
    async with AsyncExitStack() as stack:
        source = await system.open(position, stack)
        async with aclosing(source.blocks()) as blocks:
            async for block in blocks:
                content, position = content + block.content, block.position
    return content, position


@pytest.mark.parametrize("check", [checks.check_source_holds_whole_lines, checks.check_source_resumes])
async def test_it_is_a_source(system: SourceSystem, check: Callable[..., Any]) -> None:
    """Each promise of the contract: any message, up to a mebibyte, and from behind each block."""
    await run_sync(system.put, LINES)
    await check(system.open, CONTENT)


async def test_an_empty_stream_ends_at_once(system: SourceSystem) -> None:
    """And what comes later is read from its position."""
    content, position = await read(system)
    assert content == b""
    await run_sync(system.put, LINES[:3])
    assert (await read(system, position))[0] == b"".join(line + b"\n" for line in LINES[:3])


async def test_a_message_of_several_lines_is_one_event(system: SourceSystem) -> None:
    """JSON that was printed for people: its line ends are white space."""
    await run_sync(system.put, [b'{\r\n  "n": 1\n}', b'{"n": 2}\n'])
    assert (await read(system))[0] == b'{    "n": 1 }\n{"n": 2} \n'


async def test_what_was_trimmed_unread_is_told(system: SourceSystem) -> None:
    """A position whose next message is gone is refused; one whose next message is there is not."""
    await run_sync(system.put, LINES[:20])
    _, position = await read(system)
    await run_sync(system.put, LINES[20:40])
    await run_sync(system.trim, 20)
    assert (await read(system, position))[0] == b"".join(line + b"\n" for line in LINES[20:40])
    await run_sync(system.trim, 5)
    with pytest.raises((UsageError, SourceError), match="gone"):
        await read(system, position)


async def test_a_server_that_is_killed_is_waited_for(system: SourceSystem) -> None:
    """While a stream is followed: nothing is lost or repeated. A run that begins meanwhile does not wait."""
    server = system.server
    assert server is not None
    await run_sync(system.put, LINES[:50])
    content, number = b"", 50
    async with AsyncExitStack() as stack:
        source = await system.open(None, stack, follow=True)
        async with aclosing(source.blocks()) as blocks:
            async for block in blocks:
                content += block.content
                if content.count(b"\n") == number:
                    if number == 200:
                        break
                    if number in {50, often(50, 150)}:
                        await run_sync(server.kill)
                        with pytest.raises(UsageError, match=r"cannot reach .*; start the server, or name another"):
                            await read(system)
                        await run_sync(server.start)
                    await run_sync(system.put, LINES[number : number + 50])
                    number += 50
    assert content == b"".join(line + b"\n" for line in LINES[:200])


async def test_a_stream_that_is_not_there_is_named(system: SourceSystem) -> None:
    """A typo in the name: the sentence says that there is no such stream."""
    system.place += "typo"
    with pytest.raises(UsageError, match="there is no"):
        await read(system)
