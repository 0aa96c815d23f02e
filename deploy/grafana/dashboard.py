"""The Grafana dashboard, in code: `python -m tests.documents` writes modelarts-gateway.json.

Rows go from "is something wrong" to "whose fault is it" to "what is it short of". What the service
takes and what the gateway takes are never in one line.
"""

import itertools
import json
from collections.abc import Sequence

from grafana_foundation_sdk.builders import common as looks
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models

SOURCE = models.DataSourceRef("prometheus", "${datasource}")
# Outside Kubernetes there is neither label; "All" stands for `.*`, which fits that, too.
GATEWAY = 'namespace=~"$namespace",pod=~"$pod",instance=~"$instance"'
SERVICE = f'{GATEWAY},service=~"$service"'
IDENTITY = f'{GATEWAY},identity=~"$identity"'
NOT_THE_CALLERS = 'layer!="client",error!="client_error"'

LAYER_COLOURS = {
    "client": "blue",
    "gateway": "purple",
    "identity": "yellow",
    "network": "orange",
    "apig": "semi-dark-red",
    "modelarts": "light-red",
    "model": "green",
}

# Where the runbook is; keep a copy, and change the variable.
RUNBOOK = "https://github.com/modelarts-gateway/modelarts-gateway/blob/main/deploy/README.md"
# Panel → the alert that watches the same: its section of the runbook is one click away.
WATCHED_BY = {
    "Gateways up": "GatewayDown",
    "Failing": "GatewayErrorsFast",
    "Time to first byte, p95": "GatewayUpstreamSlow",
    "Overhead, p95": "GatewayOverheadHigh",
    "Token: shortest life left": "GatewayTokenExpiring",
    "Failing requests": "GatewayErrorsFast",
    "Requests in flight": "GatewaySaturated",
    "Wait for a turn": "GatewayQueueSlow",
    "Breaker open": "GatewayBreakerOpen",
    "Errors by layer": "GatewayErrorsSlow",
    "Errors by name": "GatewayErrorsLasting",
    "Time to first byte": "GatewayUpstreamSlow",
    "Overhead": "GatewayOverheadHigh",
    "Time to first chunk": "GatewayFirstChunkSlow",
    "Token: life left": "GatewayTokenExpiring",
    "Logins by result": "GatewayIamUnreachable",
    "Locked, and clock skew": "GatewayIdentityLocked",
    "File descriptors": "GatewaySaturated",
    "Configuration in force": "GatewayReloadFailed",
}


def rate(metric: str, labels: str) -> str:
    """Increase per second over as long as the graph's resolution needs."""
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def quantile(share: float, metric: str, labels: str, by: str = "") -> str:
    """Quantile of a histogram, of all its series or per value of label `by`."""
    buckets = rate(f"{metric}_bucket", labels)
    return f"histogram_quantile({share}, sum by ({f'{by}, ' if by else ''}le) ({buckets}))"


def mean(metric: str, labels: str) -> str:
    """Mean of a histogram over all its series."""
    return f"sum({rate(f'{metric}_sum', labels)}) / sum({rate(f'{metric}_count', labels)})"


FAILURES = rate("gateway_errors_total", f"{SERVICE},{NOT_THE_CALLERS}")
REQUESTS = rate("gateway_requests_total", SERVICE)
# 0: there is none. Infinity: it never ends.
TOKEN_LEFT = f"(gateway_token_expiry_timestamp_seconds{{{IDENTITY}}} > 0 < +Inf) - time()"


def target(expression: str, legend: str = "", *, exemplars: bool = False) -> prometheus.Dataquery:
    """Make a query of a panel."""
    return (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(expression)
        .legend_format(legend or "__auto")
        .exemplar(exemplars)
        .range()
    )


def steps(*bounds: tuple[float | None, str]) -> models.DynamicConfigValue:
    """Make colours of values: each from its bound up; the first has none.

    An override, because Grafana's types know the defaults' mode as an enum, which JSON has not.
    """
    colours = [{"value": bound, "color": colour} for bound, colour in bounds]
    return models.DynamicConfigValue("thresholds", {"mode": "absolute", "steps": colours})


def figure(
    title: str,
    expression: str,
    unit: str,
    meaning: str,
    colours: models.DynamicConfigValue | None = None,
) -> stat.Panel:
    """Make a single figure with its past behind it."""
    return (
        stat.Panel()
        .title(title)
        .description(meaning)
        .datasource(SOURCE)
        .with_target(target(expression).ref_id("A"))
        .unit(unit)
        .override_by_regexp(".*", [colours or steps((None, "text"))])
        .reduce_options(looks.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.AREA)
        .height(4)
        .span(4)
    )


def graph(title: str, unit: str, meaning: str, *targets: prometheus.Dataquery) -> timeseries.Panel:
    """Make a graph over time, with a table of its lines below it."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(meaning)
        .datasource(SOURCE)
        .unit(unit)
        .line_width(1)
        .fill_opacity(10)
        .show_points(kinds.VisibilityMode.NEVER)
        .legend(
            looks.VizLegendOptions()
            .show_legend(show_legend=True)
            .display_mode(kinds.LegendDisplayMode.TABLE)
            .placement(kinds.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(
            looks.VizTooltipOptions()
            .mode(kinds.TooltipDisplayMode.MULTI)
            .sort(kinds.SortOrder.DESCENDING)
        )
        .height(9)
        .span(12)
    )
    for letter, one in zip("ABC", targets, strict=False):
        panel = panel.with_target(one.ref_id(letter))
    return panel


def happened(expression: str) -> str:
    """Leave out what has not happened; a line at 0 if nothing has."""
    return f"({expression} > 0) or on() vector(0)"


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    """Make the lines of a graph add up."""
    return panel.fill_opacity(40).stacking(
        looks.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A")
    )


def coloured(panel: timeseries.Panel, colours: dict[str, str]) -> timeseries.Panel:
    """Give lines the same colour at all times."""
    for name, colour in colours.items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        panel = panel.override_by_name(name, [models.DynamicConfigValue("color", fixed)])
    return panel


def variable(name: str, label: str, metric: str, meaning: str) -> dashboard.QueryVariable:
    """Make a choice of some or all values of a label."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .description(meaning)
        .datasource(SOURCE)
        .query(f"label_values({metric}, {name})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def of_kubernetes(name: str, label: str, metric: str, meaning: str) -> dashboard.QueryVariable:
    """Make a choice of values of a label that there may not be."""
    return variable(name, label, metric, meaning).all_value(".*")


def annotation(name: str, colour: str, instants: str, text: str) -> dict[str, object]:
    """Make marks on every graph at the instants (seconds since the epoch) that a metric holds.

    As plain data: the builders know only annotations of Grafana's own.
    """
    return {
        "name": name,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "target": {"refId": "A", "expr": f"{instants}{{{GATEWAY}}} * 1000"},
        "useValueForTime": True,
        "titleFormat": name,
        "textFormat": text,
    }


ANNOTATIONS = [
    annotation(
        "Start of a gateway", "orange", "process_start_time_seconds", "{{instance}} {{pod}}"
    ),
    annotation(
        "Configuration read",
        "blue",
        "gateway_config_last_reload_success_timestamp_seconds",
        "{{instance}} {{pod}}: at its start, and at each reload that was good",
    ),
]


def runbook_link(title: str, anchor: str = "") -> dashboard.DashboardLink:
    """Make a link to the runbook, or to one section of it."""
    return (
        dashboard.DashboardLink(title)
        .type(models.DashboardLinkType.LINK)
        .url(f"${{runbook}}#{anchor}" if anchor else "${runbook}#alerts-the-runbook")
        .target_blank(target_blank=True)
    )


def at_a_glance() -> list[stat.Panel]:
    """One row of figures: is something wrong?"""
    return [
        figure(
            "Gateways up",
            f"sum(up{{{GATEWAY}}})",
            "short",
            "How many gateways Prometheus could scrape.",
            steps((None, "red"), (1, "green")),
        ),
        figure("Requests", f"sum({REQUESTS})", "reqps", "Requests answered, of all services."),
        figure(
            "Failing",
            f"sum({FAILURES}) / sum({REQUESTS})",
            "percentunit",
            "Share of requests that failed, other than by their callers' fault.",
            steps((None, "green"), (0.005, "orange"), (0.072, "red")),
        ),
        figure(
            "Time to first byte, p95",
            quantile(0.95, "gateway_upstream_first_byte_seconds", SERVICE),
            "s",
            "The service's own time, from the request sent to the first byte of its answer.",
            steps((None, "green"), (10, "orange"), (30, "red")),
        ),
        figure(
            "Overhead, p95",
            quantile(0.95, "gateway_overhead_seconds", SERVICE),
            "s",
            "The gateway's own time per request, waiting excluded.",
            steps((None, "green"), (0.005, "orange"), (0.01, "red")),
        ),
        figure(
            "Token: shortest life left",
            f"min({TOKEN_LEFT})",
            "s",
            "Of the identities that have a token. Tokens are renewed at 50 to 80 % of their life.",
            steps((None, "red"), (60, "green")),
        ),
    ]


def golden_signals() -> list[timeseries.Panel]:
    """Traffic, errors, latency, saturation: per service."""
    duration = "gateway_request_duration_seconds"
    return [
        graph(
            "Requests per second",
            "reqps",
            "Requests answered, whatever came of them.",
            target(f"sum by (service) ({REQUESTS})", "{{service}}"),
        ),
        graph(
            "Failing requests",
            "percentunit",
            "Share that failed, other than by their callers' fault. The objective is 0.5 %.",
            target(f"sum by (service) ({FAILURES}) / sum by (service) ({REQUESTS})", "{{service}}"),
        ),
        graph(
            "Duration",
            "s",
            "From a request's head to the last byte of its answer. Dots lead to traces, where "
            "callers send a traceparent.",
            *(
                target(
                    quantile(share, duration, SERVICE, "service"),
                    f"{{{{service}}}} p{share * 100:.0f}",
                    exemplars=share > 0.5,
                )
                for share in (0.5, 0.99)
            ),
        ),
        graph(
            "Requests in flight",
            "short",
            "Requests being handled, those that wait for their turn included, and how many may be "
            "with a service at a time: max_in_flight, 1000 by default.",
            target(f"sum by (service) (gateway_requests_in_flight{{{SERVICE}}})", "{{service}}"),
            target(f"sum by (service) (gateway_in_flight_limit{{{SERVICE}}})", "{{service}} limit"),
        ),
    ]


def overload() -> list[timeseries.Panel]:
    """What waits, what is refused, and what is left alone."""
    rejected = rate("gateway_requests_rejected_total", SERVICE)
    return [
        graph(
            "Wait for a turn",
            "s",
            "How long requests wait because the service has as many as it takes.",
            *(
                target(
                    quantile(share, "gateway_queue_wait_seconds", SERVICE, "service"),
                    f"{{{{service}}}} p{share * 100:.0f}",
                )
                for share in (0.5, 0.9)
            ),
        ),
        stacked(
            graph(
                "Requests waiting",
                "short",
                "How many wait for their turn.",
                target(f"sum by (service) (gateway_requests_queued{{{SERVICE}}})", "{{service}}"),
            )
        ),
        graph(
            "Requests refused",
            "reqps",
            "queue_full: at once, since waiting would not help. queue_timeout: after queue.wait. "
            "breaker_open: the service has just failed several times.",
            target(f"sum by (service, reason) ({rejected})", "{{service}} {{reason}}"),
        ),
        graph(
            "Breaker open",
            "short",
            "1 while a service is left alone because it fails; and retries that the budget did not "
            "allow, per second.",
            target(f"max by (service) (gateway_breaker_open{{{SERVICE}}})", "{{service}} open"),
            target(
                f"sum by (service) ({rate('gateway_retry_budget_exhausted_total', SERVICE)})",
                "{{service}} retries refused",
            ),
        ),
    ]


def whose_fault() -> list[timeseries.Panel]:
    """Errors, by who has to look into them."""
    errors = rate("gateway_errors_total", SERVICE)
    retries = rate("gateway_upstream_retries_total", SERVICE)
    return [
        coloured(
            stacked(
                graph(
                    "Errors by layer",
                    "reqps",
                    "client: the caller. gateway: this program. identity: IAM and our login. "
                    "network: the way to the service. apig, modelarts, model: who answered.",
                    target(f"sum by (layer) ({errors})", "{{layer}}"),
                )
            ),
            LAYER_COLOURS,
        ),
        graph(
            "Errors by name",
            "reqps",
            "What went wrong; deploy/README.md says what to do about it.",
            target(
                happened(f"sum by (service, layer, error) ({errors})"),
                "{{service}} {{layer}} {{error}}",
            ),
        ),
        stacked(
            graph(
                "Answers by status",
                "reqps",
                "What callers got; 0 is a caller that had left.",
                target(happened(f"sum by (code) ({REQUESTS})"), "{{code}}"),
            )
        ),
        graph(
            "Requests sent again",
            "reqps",
            "token_rejected: with a new token. stale_connection: on another connection.",
            target(f"sum by (service, reason) ({retries})", "{{service}} {{reason}}"),
        ),
    ]


def where_the_time_goes() -> list[timeseries.Panel]:
    """The service's time, and ours apart from it."""
    first_byte, overhead = "gateway_upstream_first_byte_seconds", "gateway_overhead_seconds"
    return [
        graph(
            "Time to first byte",
            "s",
            "The service's own time, from the request sent to the first byte of its answer.",
            *(
                target(
                    quantile(share, first_byte, SERVICE, "service"),
                    f"{{{{service}}}} p{share * 100:.0f}",
                    exemplars=share > 0.5,
                )
                for share in (0.5, 0.95)
            ),
        ),
        graph(
            "Overhead",
            "s",
            "The gateway's own time per request, waiting excluded.",
            *(
                target(
                    quantile(share, overhead, SERVICE, "service"),
                    f"{{{{service}}}} p{share * 100:.0f}",
                )
                for share in (0.5, 0.95)
            ),
        ),
        graph(
            "Mean time of a request",
            "s",
            "All of it, the service until its first byte, and the gateway. What is missing are the "
            "rest of bodies, and waiting for tokens and connections. Logarithmic.",
            target(mean("gateway_request_duration_seconds", SERVICE), "all of it"),
            target(mean(first_byte, SERVICE), "service, to first byte"),
            target(mean(overhead, SERVICE), "gateway"),
        ).scale_distribution(
            looks.ScaleDistributionConfig().type(kinds.ScaleDistribution.LOG).log(10)
        ),
        graph(
            "Bodies",
            "Bps",
            "Bytes of bodies, without heads.",
            target(f"sum({rate('gateway_request_bytes_total', SERVICE)})", "requests"),
            target(f"sum({rate('gateway_response_bytes_total', SERVICE)})", "answers"),
        ),
    ]


def streams() -> list[timeseries.Panel]:
    """Event streams, whose head says nothing about their pace; and what language models used."""
    first_chunk, pause = "gateway_upstream_first_chunk_seconds", "gateway_stream_pause_seconds"
    missing = rate("gateway_llm_usage_missing_total", SERVICE)
    return [
        graph(
            "Time to first chunk",
            "s",
            "From the request sent to the first byte of the body: of a stream, the first token.",
            *(
                target(
                    quantile(share, first_chunk, SERVICE, "service"),
                    f"{{{{service}}}} p{share * 100:.0f}",
                    exemplars=share > 0.5,
                )
                for share in (0.5, 0.95)
            ),
        ),
        graph(
            "Stream chunks",
            "cps",
            "Chunks of event streams per second; of language models, about tokens.",
            target(
                f"sum by (service) ({rate('gateway_stream_chunks_total', SERVICE)})", "{{service}}"
            ),
        ),
        graph(
            "Longest pause of streams",
            "s",
            "The longest pause of each stream, after its first chunk.",
            *(
                target(
                    quantile(share, pause, SERVICE, "service"),
                    f"{{{{service}}}} p{share * 100:.0f}",
                )
                for share in (0.5, 0.95)
            ),
        ),
        graph(
            "Tokens",
            "short",
            "Tokens per second that models report, where `usage` is on; and responses per second "
            "that reported none.",
            target(
                f"sum by (service, type) ({rate('gateway_llm_tokens_total', SERVICE)})",
                "{{service}} {{type}}",
            ),
            target(f"sum by (service) ({missing})", "{{service}} responses without"),
        ),
    ]


def tokens() -> list[timeseries.Panel]:
    """What the gateway exists for."""
    refreshes = f"gateway_token_refreshes_total{{{IDENTITY}}}"
    duration = "gateway_token_refresh_duration_seconds"
    return [
        graph(
            "Token: life left",
            "s",
            "A saw: each tooth a login, at 50 to 80 % of a token's life. No line: no token.",
            target(TOKEN_LEFT, "{{identity}} {{instance}}"),
        ),
        graph(
            "Logins by result",
            "short",
            "Attempts to get a token, by what caused them and what came of them.",
            target(
                f"sum by (identity, trigger, result) (increase({refreshes}[$__rate_interval])) > 0",
                "{{identity}} {{trigger}} {{result}}",
            ),
        ).draw_style(kinds.GraphDrawStyle.BARS),
        graph(
            "Duration of logins",
            "s",
            "How long IAM took, failures included.",
            target(
                f"sum by (identity) ({rate(f'{duration}_sum', IDENTITY)}) / "
                # a gateway that was restarted may count as many logins as before, but not as long
                f"(sum by (identity) ({rate(f'{duration}_count', IDENTITY)}) > 0)",
                "{{identity}}",
            ),
        ).show_points(kinds.VisibilityMode.ALWAYS),
        graph(
            "Locked, and clock skew",
            "short",
            "Locked is 1 while logins are held back because IAM refused the last one. Skew is our "
            "clock minus IAM's, in seconds.",
            target(f"gateway_identity_locked{{{IDENTITY}}}", "locked: {{identity}} {{instance}}"),
            target(f"gateway_clock_skew_seconds{{{IDENTITY}}}", "skew: {{identity}} {{instance}}"),
        ),
    ]


def saturation() -> list[timeseries.Panel]:
    """What the gateway may be short of."""
    return [
        graph(
            "Connections to services",
            "short",
            "active: a request is on it. idle: kept for the next.",
            target(
                f"sum by (service, state) (gateway_upstream_connections{{{SERVICE}}})",
                "{{service}} {{state}}",
            ),
        ),
        graph(
            "Processor",
            "percentunit",
            "Of one processor, which is all that a gateway can use.",
            target(rate("process_cpu_seconds_total", GATEWAY), "{{instance}}"),
        ),
        graph(
            "Memory",
            "bytes",
            "Resident memory.",
            target(f"process_resident_memory_bytes{{{GATEWAY}}}", "{{instance}}"),
        ),
        graph(
            "File descriptors",
            "percentunit",
            "Share of the limit. A request in flight needs two.",
            target(f"process_open_fds{{{GATEWAY}}} / process_max_fds{{{GATEWAY}}}", "{{instance}}"),
        ),
        graph(
            "Configuration in force",
            "short",
            "1: the one last read. 0: the last one read cannot be used.",
            target(f"gateway_config_last_reload_successful{{{GATEWAY}}}", "{{instance}}"),
        )
        .min(0)
        .max(1),
        graph(
            "Versions",
            "short",
            "How many gateways run which version.",
            target(
                f"count by (version, python) (gateway_build_info{{{GATEWAY}}})",
                "{{version}} on Python {{python}}",
            ),
        ),
    ]


def build() -> models.Dashboard:
    """Put everything together."""
    made = (
        dashboard.Dashboard("modelarts-gateway")
        .uid("modelarts-gateway")
        .description("Whose fault is it: caller, gateway, IAM, network, APIG, ModelArts or model?")
        .tags(["modelarts-gateway"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Source").type("prometheus")
        )
        .link(runbook_link("Runbook"))
        .with_variable(
            of_kubernetes("namespace", "Namespace", "gateway_build_info", "Where they run.")
        )
        .with_variable(
            of_kubernetes(
                "pod", "Pod", 'gateway_build_info{namespace=~"$namespace"}', "Which pods."
            )
        )
        .with_variable(
            variable(
                "instance",
                "Gateway",
                'gateway_build_info{namespace=~"$namespace",pod=~"$pod"}',
                "Which gateways.",
            )
        )
        .with_variable(
            variable(
                "service",
                "Service",
                f"gateway_requests_in_flight{{{GATEWAY}}}",
                "Which services; other: requests that belong to none.",
            )
        )
        .with_variable(
            variable(
                "identity",
                "Identity",
                f"gateway_identity_locked{{{GATEWAY}}}",
                "Which logins.",
            )
        )
        .with_variable(
            dashboard.ConstantVariable("runbook")
            .label("Runbook")
            .description("Where the runbook is.")
            .value(RUNBOOK)
        )
    )
    rows: dict[str, Sequence[stat.Panel | timeseries.Panel]] = {
        "At a glance": at_a_glance(),
        "Golden signals": golden_signals(),
        "Overload": overload(),
        "Whose fault": whose_fault(),
        "Where the time goes": where_the_time_goes(),
        "Streams": streams(),
        "Tokens": tokens(),
        "Saturation": saturation(),
    }
    numbers = itertools.count(1)
    for title, panels in rows.items():
        made = made.with_row(dashboard.Row(title).id(next(numbers)))
        for panel in panels:
            watched_by = WATCHED_BY.get(panel.build().title or "")
            if watched_by is not None:
                link = runbook_link(f"Runbook: {watched_by}", watched_by.lower())
                panel.links([link])
            made = made.with_panel(panel.id(next(numbers)))
    return made.build()


def dashboard_json() -> str:
    """Return the dashboard as Grafana imports it."""
    made = json.loads(json.dumps(build(), cls=JSONEncoder))
    made.setdefault("annotations", {})["list"] = ANNOTATIONS
    for one in made["templating"]["list"]:
        for key in ("auto", "auto_min", "auto_count"):  # belong to variables of another type
            one.pop(key, None)
        if one["type"] == "constant":
            one["hide"] = 2  # nothing to choose; the builder has no word for it
    return json.dumps(made, indent=2) + "\n"
