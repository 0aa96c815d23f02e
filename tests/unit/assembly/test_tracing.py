"""When exchanges are traced, and what is said when they cannot be."""

import subprocess
import sys

import pytest

from gateway.assembly.tracing import tracer_of

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ""),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "True"}, ""),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, ""),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
    ],
)
def test_not_traced(environ: dict[str, str], said: str) -> None:
    """Not asked for, or in words that are not spoken: said in one line, and no reason to end."""
    lines: list[str] = []

    assert tracer_of(environ, lines.append, clock=float, wall_clock=float) is None
    assert len(lines) == bool(said)
    assert all(said in line for line in lines)


def test_without_the_extra_it_says_what_to_install() -> None:
    """One line, and no reason to end: the endpoint may have been set for everybody here."""
    program = (
        "import sys; sys.modules['opentelemetry'] = None\n"  # as if it were not installed
        "from gateway.assembly.tracing import tracer_of\n"
        "assert tracer_of({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://x'}, print,"
        " clock=float, wall_clock=float) is None\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "pip install 'modelarts-gateway[otel]'" in done.stdout
    assert len(done.stdout.splitlines()) == 1
