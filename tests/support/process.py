"""A command that runs to its end, and leaves nothing behind when it does not end in time."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from tests.support.until import PATIENCE_S


async def run(
    *command: str,
    env: Mapping[str, str] | None = None,
    stdout: int = asyncio.subprocess.PIPE,
    stderr: int = asyncio.subprocess.PIPE,
    within_s: float = PATIENCE_S,
) -> tuple[int, str, str]:
    """Return its exit code, and what it wrote to both outputs where these are pipes.

    Raises:
        TimeoutError: it has been killed. Left running, its pipes would outlive the test's event
            loop, which uvloop then cannot close.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdout=stdout, stderr=stderr, env=None if env is None else dict(env)
    )
    try:
        async with asyncio.timeout(within_s):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()
    return process.returncode or 0, (out or b"").decode(), (err or b"").decode()
