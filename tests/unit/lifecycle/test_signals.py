"""Signals before there is anything that could act on them."""

import signal
import subprocess
import sys

import pytest

_EARLY = """
import os, signal
from gateway.lifecycle.signals import Signals
signals = Signals(reload=True)
for number in ({}):
    os.kill(os.getpid(), number)
print(signals.told_to_end)
heard = []
signals.follow(heard.append)
os.kill(os.getpid(), signal.SIGTERM)
print(*(number.name for number in heard), flush=True)
for _ in range(2):
    os.kill(os.getpid(), signal.SIGINT)
    print("going on", flush=True)
"""


def early(*numbers: str) -> tuple[int, str]:
    """Return exit code and output of a process that gets signals early."""
    listed = "".join(f"signal.{number}," for number in numbers)
    done = subprocess.run(
        [sys.executable, "-c", _EARLY.format(listed)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("numbers", "ends"), [(["SIGHUP"], False), (["SIGTERM"], True), (["SIGHUP", "SIGINT"], True)]
)
def test_none_is_forgotten(numbers: list[str], ends: bool) -> None:
    """They are handed over in order once somebody follows."""
    _, said = early(*numbers)
    assert said.startswith(f"{ends}\n{' '.join([*numbers, 'SIGTERM'])}\n")


def test_the_third_end_is_the_end() -> None:
    """Nobody has acted on two of them: the third does what it does by itself."""
    assert early() == (-signal.SIGINT, "False\nSIGTERM\ngoing on\n")


def test_the_second_end_before_that_is_the_end() -> None:
    """Something hangs: who asks twice is obeyed, by the signal itself."""
    assert early("SIGTERM", "SIGTERM") == (-signal.SIGTERM, "")


def test_hearing_needs_next_to_nothing() -> None:
    """The module is there before anything slow: it imports nothing but a little of Python's own."""
    code = "import sys; import gateway.lifecycle.signals; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"asyncio", "aiohttp", "pydantic", "yaml"} & set(done.stdout.split())
