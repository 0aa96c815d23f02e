"""The token endpoint's address."""

import pytest

from tests.unit.settings.given import GOOD, problems_of, use


@pytest.mark.parametrize(
    "address", ["0.0.0.0:9095", "10.0.0.1:9095", "[::]:9095", "gateway.example:9095"]
)
def test_the_token_endpoint_is_refused_where_other_machines_reach_it(address: str) -> None:
    """Every client that reaches it has the token."""
    (problem,) = problems_of(GOOD | {"token_listen": address})

    assert problem.startswith(f"token_listen: '{address}' can be reached from other machines")


@pytest.mark.parametrize("key", ["listen", "admin_listen"])
def test_the_token_endpoint_has_an_address_of_its_own(key: str) -> None:
    """The other listeners hand out no token."""
    (problem,) = problems_of(GOOD | {"token_listen": "127.0.0.1:7", key: "127.0.0.1:7"})

    assert problem.startswith("token_listen: 127.0.0.1:7 is another listener's")


def test_a_token_endpoint_that_many_can_ask_is_warned_about() -> None:
    """A socket file says who may; TCP does not."""
    sock = {"token_listen": "unix:/run/t.sock"}

    assert use(GOOD | sock).settings.token_listen_mode == "0600"
    assert use(GOOD | sock).warnings == ()
    (warning,) = use(GOOD | {"token_listen": "localhost:7"}).warnings
    assert warning.startswith("token_listen: every process")
    (warning,) = use(GOOD | sock | {"token_listen_mode": "0666"}).warnings
    assert warning.startswith("token_listen_mode: 0666 lets every user")
