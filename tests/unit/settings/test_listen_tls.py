"""TLS for callers."""

from pathlib import Path

from tests.unit.settings.given import GOOD, problems_of, use


def test_who_may_call_needs_somebody_who_vouches(tmp_path: Path) -> None:
    """A list of names without an authority would be a list that anybody is on."""
    (tmp_path / "pem").touch()
    pem = str(tmp_path / "pem")
    tls = {"cert_file": pem, "allowed_clients": "a,b"}

    (problem,) = problems_of(GOOD | {"listen_tls": tls})
    assert problem.startswith("listen_tls.client_ca_file: required with allowed_clients")
    (problem,) = problems_of(
        GOOD | {"listen": "unix:/run/g.sock", "listen_tls": {"cert_file": pem}}
    )
    assert problem.startswith("listen_tls: makes no sense on a socket file")


def test_a_listener_that_others_reach_is_warned_about_unless_callers_are_known(
    tmp_path: Path,
) -> None:
    """TLS alone does not say who calls."""
    (tmp_path / "pem").touch()
    pem = str(tmp_path / "pem")
    open_to_all = GOOD | {"listen": "0.0.0.0:8443"}

    for tls in (None, {"cert_file": pem}):
        (warning,) = use(open_to_all | {"listen_tls": tls}).warnings
        assert warning.startswith("listen: 0.0.0.0:8443 can be reached from other machines")
    tls = {"cert_file": pem, "client_ca_file": pem}
    assert use(open_to_all | {"listen_tls": tls}).warnings == ()


def test_a_socket_file_is_not_shared() -> None:
    """The kernel shares out connections to TCP ports only."""
    (problem,) = problems_of(GOOD | {"listen": "unix:/run/g.sock", "reuse_port": True})

    assert problem.startswith("reuse_port: makes no sense on a socket file")
