"""Running a gateway: what its log says of what nobody has foreseen."""

import asyncio
import os
import sys
import textwrap

_SCRIPT = textwrap.dedent("""
    import asyncio, contextlib, os, signal
    from gateway.assembly.gateway import build_gateway
    from gateway.lifecycle.run import run_until_told, set_up_logging
    from gateway.lifecycle.signals import Signals
    from gateway.settings import load

    def fail(text):
        raise ValueError(text)

    @contextlib.asynccontextmanager
    async def build(access_log):
        settings = load(file=None, environ={}, flags={
            "listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0",
            "identities": {"default": {"method": "none"}},
            "services": {"iris": {"url": "http://127.0.0.1:1/"}},
        }).settings
        loop = asyncio.get_running_loop()
        loop.call_soon(fail, "sesame-sesame")
        loop.call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
        yield build_gateway(settings, access_log)

    set_up_logging()
    run_until_told(build, lambda data, admin: None, Signals())
""")


async def test_a_fault_in_the_event_loop_is_told_without_its_text() -> None:
    """One line with type and place; the gateway goes on until it is told to end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _SCRIPT),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
    )
    async with asyncio.timeout(20):
        out, err = await process.communicate()

    assert (process.returncode, out) == (0, b"")
    [line] = err.decode().splitlines()
    assert " ERROR gateway.observe: event loop: Exception in callback: ValueError in fail (" in line
    assert "sesame" not in line
