"""What Prometheus is told: names, labels, buckets, and both formats."""

import subprocess
from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from gateway.errors import ErrorCode, Layer, Rejection
from gateway.observe.exposition import SERIES_AT_A_TIME
from gateway.observe.histogram import Histogram, Shifted
from gateway.observe.identity_metrics import REFRESH_BUCKETS_S, IdentityGauges, IdentityMetrics
from gateway.observe.memory import Waiting
from gateway.observe.metrics import Metrics
from gateway.observe.overload import OverloadGauges
from gateway.observe.service_metrics import (
    OVERHEAD_BUCKETS_S,
    REQUEST_BUCKETS_S,
    UPSTREAM_ERRORS,
    ServiceGauges,
    ServiceMetrics,
    upstream_error_of,
)
from gateway.observe.streams import UsageCounts
from tests.support.rows import every_row
from tests.support.tools import tool

LABELS = (
    "service", "identity", "method", "code", "layer", "error", "reason", "state", "type", "trigger",
    "kind", "result", "to", "le", "version", "python", "aiohttp", "compiled",
)  # fmt: skip
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def metrics_of(service: ServiceMetrics, identity: IdentityMetrics | None = None) -> Metrics:
    """Metrics with one service, and perhaps an identity."""
    metrics = Metrics()
    metrics.add_service(service, lambda: ServiceGauges(2, 3, OverloadGauges(6, 7, 5, "open")))
    if identity is not None:
        metrics.add_identity(identity, lambda: IdentityGauges(1.7e9, True, -0.25))
    return metrics


def key_of(name: str, labels: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    """Name and label values, in the order in which the contract names the labels."""
    return name, tuple(labels[label] for label in sorted(labels, key=LABELS.index))


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Values by name and label values."""
    page, _ = metrics.exposition("")
    found = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            key = key_of(sample.name, sample.labels)
            assert key not in found, "a series is there twice"
            found[key] = sample.value
    return found


def filled() -> Metrics:
    """Metrics in which everything has happened."""
    service = ServiceMetrics("iris", ["POST"], ["token_rejected"])
    identity = IdentityMetrics("default", ["startup"], ["ok"])
    service.count_request("POST", 200)
    service.count_error(Layer.APIG, "throttled")
    service.count_retry("token_rejected")
    service.count_rejection(Rejection.QUEUE_FULL)
    service.overload.queue_wait.observe(0.3)
    service.duration.observe(0.3)
    service.bodies.usage = UsageCounts()
    service.bodies.usage.count((3, 4))
    service.bodies.usage.count(None)
    identity.refreshed("startup", "ok", 0.2)
    identity.expect_sinks(["ok"])
    identity.sink_written("ok")
    return metrics_of(service, identity)


def traceparent(trace_id: str) -> bytes:
    """Return a header's value that names this trace."""
    return f"00-{trace_id}-00f067aa0ba902b7-01".encode()


def exemplars(
    metrics: Metrics,
) -> list[tuple[tuple[str, ...], tuple[dict[str, str], float, float]]]:
    """Of every series that has one: its label values, and the exemplar."""
    page, _ = metrics.exposition(OPEN_METRICS)
    return [
        (
            key_of(sample.name, sample.labels)[1],
            (
                sample.exemplar.labels,
                sample.exemplar.value,
                float(sample.exemplar.timestamp or 0),
            ),
        )
        for family in open_metrics_families(page.decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar
    ]


@pytest.mark.parametrize("bounds", [REQUEST_BUCKETS_S, OVERHEAD_BUCKETS_S, REFRESH_BUCKETS_S])
def test_bounds_are_inclusive_and_counts_cumulative(bounds: tuple[float, ...]) -> None:
    """A value at a bound is in its bucket, one just above is in the next."""
    histogram = Histogram(bounds)
    for bound in bounds:
        histogram.observe(bound)
        histogram.observe(bound * 1.000001)
    counts = [count for _, count in histogram.buckets()]

    assert counts == [*range(1, 2 * len(bounds), 2), 2 * len(bounds)]
    assert [float(bound) for bound, _ in histogram.buckets()] == [*bounds, float("inf")]
    assert list(bounds) == sorted(bounds)


@given(st.lists(st.floats(0, 100)))
def test_a_histogram_counts_everything_once(values: list[float]) -> None:
    """Its last bucket is the number of values, and no bucket is below the one before."""
    histogram = Histogram(REQUEST_BUCKETS_S)
    for value in values:
        histogram.observe(value)
    counts = [count for _, count in histogram.buckets()]

    assert counts[-1] == len(values)
    assert counts == sorted(counts)
    assert histogram.total == pytest.approx(sum(values))
    for bound, count in histogram.buckets():
        assert count == sum(value <= float(bound) for value in values)


@given(
    st.lists(
        st.tuples(st.floats(0, 70), st.one_of(st.none(), st.just("same"), st.floats(0, 70))),
        max_size=30,
    )
)
def test_a_shifted_histogram_is_the_one_that_observed_the_other_values(
    pairs: list[tuple[float, float | str | None]],
) -> None:
    """Values are those of its origin, moved to others, or left out."""
    origin, wanted = Histogram(REQUEST_BUCKETS_S), Histogram(REQUEST_BUCKETS_S)
    shifted = Shifted(origin)
    for value, other in pairs:
        origin.observe(value)
        if other is None:
            shifted.leave_out(value)
        elif isinstance(other, float):
            shifted.move(value, other)
            wanted.observe(other)
        else:
            wanted.observe(value)

    assert shifted.histogram().counts == wanted.counts
    assert shifted.histogram().total == pytest.approx(wanted.total, abs=1e-6)


def test_only_values_that_were_moved_have_examples_of_their_own() -> None:
    """Those of the origin stand beside the origin."""
    service = ServiceMetrics("iris", ["POST"], [])
    service.first_byte.observe(0.03)
    service.bodies.first_chunk.move(0.03, 1.5)
    service.bodies.first_chunk.exemplify(1.5, traceparent("c" * 32), 1.7e9)

    assert exemplars(metrics_of(service)) == [
        (("iris", "2.5"), ({"trace_id": "c" * 32}, 1.5, 1.7e9))
    ]


@pytest.mark.parametrize(
    ("method", "status", "labels"),
    [
        ("POST", 200, ("POST", "200")),
        ("POST", 0, ("POST", "0")),
        ("GET", 200, ("other", "200")),
        ("", 501, ("other", "501")),
        ("POST", 205, ("POST", "2xx")),
        ("POST", 302, ("POST", "3xx")),
        ("POST", 418, ("POST", "4xx")),
        ("POST", 599, ("POST", "5xx")),
        ("BREW", 511, ("other", "5xx")),
    ],
)
def test_labels_come_from_closed_sets(method: str, status: int, labels: tuple[str, str]) -> None:
    """What is not in them counts as `other`, or as its class; a series is there once seen."""
    service = ServiceMetrics("iris", ["POST"], [])
    before = samples(metrics_of(service))
    for _ in range(2):
        service.count_request(method, status)
    after = samples(metrics_of(service))

    key = ("gateway_requests_total", ("iris", *labels))
    assert after.keys() - before.keys() == {key}
    assert after[key] == 2


@given(st.text(max_size=5), st.integers(200, 599))
def test_any_status_counts_once(method: str, status: int) -> None:
    """For every method and every status that a final response may have."""
    service = ServiceMetrics("iris", ["POST"], [])
    service.count_request(method, status)

    requests, _, _ = service.totals()
    assert sum(requests.values()) == 1


def test_every_error_status_has_a_name() -> None:
    """And the series for it is there, for every layer that can have answered."""
    service = ServiceMetrics("iris", [], [])
    with every_row() as trying:
        for status in range(400, 600):
            with trying(status):
                name = upstream_error_of(status)
                assert name in UPSTREAM_ERRORS
                for layer in (Layer.APIG, Layer.MODELARTS, Layer.MODEL):
                    service.count_error(layer, name)


def test_every_error_of_ours_can_be_counted() -> None:
    """Its series exists from the start."""
    service = ServiceMetrics("iris", [], [])
    for code in ErrorCode:
        service.count_error(code.layer, code.label)

    assert sum(service.totals()[1].values()) == len(ErrorCode)


def test_what_the_contract_names_is_there() -> None:
    """Every metric with exactly its labels, and two more: lost lines and a loop that is late."""
    page, content_type = filled().exposition("")
    families = {
        family.name: {frozenset(sample.labels) - {"le"} for sample in family.samples}
        for family in text_string_to_metric_families(page.decode())
        if family.name.startswith("gateway_")
    }

    assert content_type.startswith("text/plain")
    service, identity = frozenset({"service"}), frozenset({"identity"})
    assert families == {
        "gateway_requests": {service | {"method", "code"}},
        "gateway_request_duration_seconds": {service},
        "gateway_upstream_first_byte_seconds": {service},
        "gateway_overhead_seconds": {service},
        "gateway_requests_in_flight": {service},
        "gateway_request_bytes": {service},
        "gateway_response_bytes": {service},
        "gateway_errors": {service | {"layer", "error"}},
        "gateway_upstream_retries": {service | {"reason"}},
        "gateway_upstream_connections": {service | {"state"}},
        "gateway_in_flight_limit": {service},
        "gateway_requests_queued": {service},
        "gateway_requests_rejected": {service | {"reason"}},
        "gateway_queue_wait_seconds": {service},
        "gateway_breaker_open": {service},
        "gateway_breaker_transitions": {service | {"to"}},
        "gateway_retry_budget_exhausted": {service},
        "gateway_token_expiry_timestamp_seconds": {identity},
        "gateway_identity_locked": {identity},
        "gateway_clock_skew_seconds": {identity},
        "gateway_token_refreshes": {identity | {"trigger", "result"}},
        "gateway_token_refresh_duration_seconds": {identity},
        "gateway_sink_writes": {identity | {"result"}},
        "gateway_memory_budget_bytes": {frozenset()},
        "gateway_memory_waiting_bytes": {frozenset({"kind"})},
        "gateway_config_last_reload_successful": {frozenset()},
        "gateway_config_last_reload_success_timestamp_seconds": {frozenset()},
        "gateway_build_info": {frozenset({"version", "python", "aiohttp", "compiled"})},
        "gateway_access_log_lost_lines": {frozenset()},
        "gateway_upstream_first_chunk_seconds": {service},
        "gateway_stream_chunks": {service},
        "gateway_stream_pause_seconds": {service},
        "gateway_llm_tokens": {service | {"type"}},
        "gateway_llm_usage_missing": {service},
        "gateway_event_loop_lag_seconds": {frozenset()},
    }


def test_values_are_those_counted() -> None:
    """Of counters, gauges and histograms, of services and identities."""
    found = samples(filled())

    assert found["gateway_requests_total", ("iris", "POST", "200")] == 1
    assert found["gateway_errors_total", ("iris", "apig", "throttled")] == 1
    assert found["gateway_upstream_retries_total", ("iris", "token_rejected")] == 1
    assert found["gateway_upstream_connections", ("iris", "active")] == 2
    assert found["gateway_llm_tokens_total", ("iris", "input")] == 3
    assert found["gateway_llm_tokens_total", ("iris", "output")] == 4
    assert found["gateway_llm_usage_missing_total", ("iris",)] == 1
    assert found["gateway_upstream_connections", ("iris", "idle")] == 3
    assert found["gateway_in_flight_limit", ("iris",)] == 7
    assert found["gateway_requests_queued", ("iris",)] == 5
    assert found["gateway_breaker_open", ("iris",)] == 1
    assert found["gateway_requests_rejected_total", ("iris", "queue_full")] == 1
    assert found["gateway_queue_wait_seconds_bucket", ("iris", "0.25")] == 0
    assert found["gateway_queue_wait_seconds_bucket", ("iris", "0.5")] == 1
    assert found["gateway_request_duration_seconds_bucket", ("iris", "0.25")] == 0
    assert found["gateway_request_duration_seconds_bucket", ("iris", "0.5")] == 1
    assert found["gateway_request_duration_seconds_sum", ("iris",)] == 0.3
    assert found["gateway_token_refreshes_total", ("default", "startup", "ok")] == 1
    assert found["gateway_sink_writes_total", ("default", "ok")] == 1
    assert found["gateway_token_expiry_timestamp_seconds", ("default",)] == 1.7e9
    assert found["gateway_identity_locked", ("default",)] == 1
    assert found["gateway_clock_skew_seconds", ("default",)] == -0.25


def test_open_metrics_when_asked_for() -> None:
    """A strict parser of that format takes the page, and it says the same."""
    metrics = filled()
    page, content_type = metrics.exposition(OPEN_METRICS)
    values = {
        key_of(sample.name, sample.labels): sample.value
        for family in open_metrics_families(page.decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.name.startswith("gateway_")
    }

    assert content_type.startswith("application/openmetrics-text")
    assert page.endswith(b"# EOF\n")
    assert values == {
        key: value for key, value in samples(metrics).items() if key[0].startswith("gateway_")
    }


def written_in(metrics: Metrics, accept: str) -> list[int]:
    """Return how many series each piece of a page has, and see that they are the whole page."""
    writing = metrics.write_exposition(accept)
    pieces: list[int] = []
    page = b""
    while not page:
        try:
            pieces.append(next(writing))
        except StopIteration as end:
            page, _ = end.value
    lines = [line for line in page.decode().splitlines() if not line.startswith("#")]
    assert len(lines) == sum(pieces)
    assert len(set(lines)) == len(lines)
    return pieces


@pytest.mark.parametrize("accept", ["", OPEN_METRICS])
@pytest.mark.parametrize("services", [1, 30])
def test_a_page_is_written_a_little_at_a_time(services: int, accept: str) -> None:
    """However many services there are: others run after a hundred series and one family's rest."""
    metrics = Metrics()
    for number in range(services):
        service = ServiceMetrics(f"service-{number}", ["POST"], ["token_rejected"])
        service.count_request("POST", 200)
        metrics.add_service(service, lambda: ServiceGauges(0, 0, OverloadGauges(limit=1000)))
    pieces = written_in(metrics, accept)

    assert sum(pieces) > 100 * services
    assert max(pieces) < 2 * SERIES_AT_A_TIME


def test_others_run_while_what_waits_is_added_up() -> None:
    """Each pause in the adding is a pause of the scrape."""
    metrics = Metrics()

    def add_up() -> Generator[int, None, Waiting]:
        yield 0
        yield 0
        return Waiting(heads=1, bodies=2, answers=3, kept=4, budget=5)

    metrics.add_up_waiting = add_up
    assert written_in(metrics, "")[:2] == [0, 0]
    assert samples(metrics)[key_of("gateway_memory_waiting_bytes", {"kind": "answers"})] == 3


@pytest.mark.parametrize("accept", ["", OPEN_METRICS])
def test_a_family_is_in_one_place_with_one_head(accept: str) -> None:
    """As the format demands, although services are written one after the other."""
    metrics = filled()
    other = ServiceMetrics("image", ["POST"], [])
    metrics.add_service(other, lambda: ServiceGauges(0, 0, OverloadGauges(limit=7)))
    page = metrics.exposition(accept)[0].decode()
    heads: list[str] = []
    for line in page.splitlines():
        if line.startswith("# TYPE"):
            heads.append(line.split(" ")[2])
        elif not line.startswith("#"):
            assert line.startswith(heads[-1])

    assert len(set(heads)) == len(heads)
    assert page.count("# EOF") == (1 if accept else 0)


def test_what_was_put_aside_is_counted_before_a_scrape() -> None:
    """The page holds what `before_scrape` adds."""
    service = ServiceMetrics("iris", ["POST"], [])
    metrics = metrics_of(service)
    metrics.before_scrape = lambda: service.count_request("POST", 200)

    assert samples(metrics)["gateway_requests_total", ("iris", "POST", "200")] == 1


@pytest.mark.parametrize(
    ("value", "bucket"), [(0.0, "0.005"), (0.3, "0.5"), (0.5, "0.5"), (60.001, "+Inf")]
)
def test_an_exemplar_stands_at_the_bucket_of_its_value(value: float, bucket: str) -> None:
    """With trace, value and time, and nowhere else; in OpenMetrics only."""
    service = ServiceMetrics("iris", ["POST"], [])
    service.duration.observe(value, traceparent("c" * 32), 1.7e9 + 0.1234)
    metrics = metrics_of(service)

    assert exemplars(metrics) == [
        (("iris", bucket), ({"trace_id": "c" * 32}, value, 1_700_000_000.123))
    ]
    assert b"c" * 32 not in metrics.exposition("")[0]


@given(st.lists(st.floats(0, 100)))
def test_exemplars_are_the_newest_and_no_more_than_buckets(values: list[float]) -> None:
    """However many requests are traced, a bucket keeps one: the last."""
    histogram = Histogram(REQUEST_BUCKETS_S)
    for number, value in enumerate(values):
        histogram.observe(value, traceparent(f"{number + 1:032x}"), float(number))
    found = {float(each[0]): each[2] for each in histogram.exposed() if len(each) == 3}

    assert {bound: int(one.labels["trace_id"], 16) for bound, one in found.items()} == {
        next((b for b in REQUEST_BUCKETS_S if value <= b), float("inf")): number + 1
        for number, value in enumerate(values)
    }


def test_promtool_finds_nothing() -> None:
    """Prometheus' own linter has no complaint about what is ours."""
    page, _ = filled().exposition("")
    promtool = tool("promtool", "prometheus")
    ended = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, check=False
    )

    complaints = [line for line in ended.stderr.decode().splitlines() if "gateway_" in line]
    assert complaints == []


def test_names_and_help_follow_the_rules_of_prometheus() -> None:
    """As its linter asks: help texts, base units, counters and no others end in `_total`."""
    page, _ = filled().exposition("")
    for family in text_string_to_metric_families(page.decode()):
        if not family.name.startswith("gateway_"):
            continue
        assert family.documentation.endswith(".")
        assert not family.name.endswith(("_ms", "_milliseconds", "_us", "_kb", "_count", "_sum"))
        assert all(
            sample.name.endswith("_total") == (family.type == "counter")
            for sample in family.samples
        )
