"""The status page in a real Chromium, looking at a real gateway under live traffic."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.browser.scene import CALLERS_ID, CALLERS_TEXT, REBOUND, chromium, live_demo
from tests.support.demo import ROOT, Demo
from tests.support.tools import lacking

AXE = ROOT / ".venv" / "axe"
AXE_VERSION = "4.14.1"
POLL_S = 2.0
PATIENCE_MS = 100_000
LAYERS = ["client", "gateway", "identity", "network", "apig", "modelarts", "model"]

# A browser beside everything else on two busy cores: 5 to 10 s each, where they idle.
pytestmark = pytest.mark.timeout(300)
expect.set_options(timeout=PATIENCE_MS)

# Chromium says a violation on the console by itself; that depends on its settings, this does not.
_REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy: ${event.effectiveDirective}`);
});
"""


@dataclass
class Visit:
    """An open page and what the browser said and asked for meanwhile."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings on the console, uncaught exceptions, violations of the policy."""
    asked: list[str] = field(default_factory=list)
    """URLs."""

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def until_changed(self, *scripts: str) -> None:
        """Wait until the value of each JavaScript expression differs from what it is now."""
        values = f"[{', '.join(f'String({script})' for script in scripts)}]"
        self.page.wait_for_function(
            f"before => {values}.every((value, index) => value !== before[index])",
            arg=self.page.evaluate(values),
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all; each visit has a profile of its own."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def demo(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One gateway with callers for all; none is started where there is no browser."""
    with live_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@contextmanager
def visiting(browser: Browser, demo: Demo, **settings: Any) -> Iterator[Visit]:
    """Open the page and wait for its first figures; fails on any complaint of the browser."""
    context = browser.new_context(**settings)
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(_REPORT_VIOLATIONS)
    visit = Visit(context.new_page())
    visit.page.on("pageerror", lambda error: visit.complaints.append(f"uncaught: {error}"))
    visit.page.on("request", lambda request: visit.asked.append(request.url))
    visit.page.on(
        "console",
        lambda message: (
            visit.complaints.append(f"{message.type}: {message.text}")
            if message.type in {"error", "warning"}
            else None
        ),
    )
    try:
        visit.page.goto(f"{demo.admin_url}/status")
        expect(visit.page.locator("#verdict")).to_have_text("Ready")
        yield visit
        assert not visit.complaints
    finally:
        context.close()


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, installed beside the virtual environment's other tools."""
    source = AXE / "node_modules" / "axe-core" / "axe.min.js"
    if not source.exists():
        npm = shutil.which("npm")
        if npm is None:
            lacking("npm is not installed, so axe-core cannot be had")
        AXE.mkdir(parents=True, exist_ok=True)
        quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(
            [npm, "install", "--prefix", str(AXE), f"axe-core@{AXE_VERSION}", *quiet],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            lacking(f"npm cannot install axe-core: {done.stderr.strip().splitlines()[-1:]}")
    return source.read_text(encoding="utf-8")


def ask(url: str) -> None:
    """Send one POST, whatever the answer."""
    with requests.Session() as session:
        session.trust_env = False
        session.post(url, timeout=60)


def accessibility_problems(page: Page, options: str = "{}") -> list[str]:
    """Return what axe-core finds, best practices included; rows like those above are left out."""
    alike = "'tbody tr:not(.failed):nth-child(n+6)', 'tr.failed ~ tr.failed'"
    found = page.evaluate(f"axe.run({{ exclude: [{alike}] }}, {options})")
    assert found["passes"], "axe did not look"
    return [
        f"{problem['id']}: {node['html'][:120]} {node['failureSummary']}"
        for problem in found["violations"]
        for node in problem["nodes"]
    ]


def test_values_move_under_live_traffic(browser: Browser, demo: Demo) -> None:
    """
    Rates, latencies, tokens, errors and requests are live, and the browser finds no fault.
    """
    with visiting(browser, demo) as visit:
        ask(f"{demo.url}/iris?twin-code=APIG.0308&twin-status=429")
        ask(f"{demo.twin_url}/twin/revoke")
        visit.page.wait_for_selector("#plot-rate path.one")
        visit.until_changed(
            "document.querySelector('#plot-rate path.one').getAttribute('d')",
            "document.querySelector('#plot-latency path.two').getAttribute('d')",
            "document.querySelector('.life').getAttribute('aria-valuetext')",
            "document.querySelector('#about').textContent",
            "document.querySelector('#requests-rows').textContent",
        )
        assert float(visit.text("#figure-rate").split()[0]) > 1
        for figure in ("average", "p95", "overhead"):
            assert visit.text(f"#figure-{figure}").endswith(("ms", " s")), figure
        services = visit.page.locator("#services-rows tr")
        assert [row.split()[0] for row in services.all_inner_texts()] == [
            "iris", "image", "llm", "slow",
        ]  # fmt: skip
        assert visit.page.locator("#errors-rows th span").all_inner_texts() == LAYERS
        expect(visit.page.locator("#requests-rows tr")).to_have_count(50)
        expect(visit.page.locator("#errors-rows tr", has_text="apig")).to_contain_text("throttled")
        expect(visit.page.locator("#identities-cards")).to_contain_text("2 ok")

    assert all(url.startswith(f"{demo.admin_url}/status") for url in visit.asked), visit.asked


def test_configuration_shows_values_and_origins_but_no_secret(browser: Browser, demo: Demo) -> None:
    """
    Nor does anything that a caller chose, but for the request's id, which the access log has, too.
    """
    with visiting(browser, demo) as visit:
        rows = visit.page.locator("#configuration-rows tr")
        password = rows.filter(has_text="identities.default.password")
        assert password.locator("td").all_inner_texts() == ["********", "env OS_PASSWORD"]
        count = rows.count()
        assert rows.filter(has_text="drain.timeout").count() == 1
        visit.page.get_by_label("hide defaults").check()
        assert rows.count() < count
        assert rows.filter(has_text="drain.timeout").count() == 0
        shown = visit.page.content()
        told = json.dumps(visit.page.evaluate("latest"))

    assert "********" in shown
    assert CALLERS_ID in told
    for secret in ("twin-password", CALLERS_TEXT, "twin-delay", "sepal"):
        assert secret not in shown, secret
        assert secret not in told, secret


@pytest.mark.long
def test_figures_are_those_of_the_time_between_two_polls(browser: Browser, demo: Demo) -> None:
    """
    Rate, average, percentile and share of errors, from counters; a restart begins anew.
    """
    with visiting(browser, demo) as visit:
        visit.page.locator("#pause").click()
        figures = visit.page.evaluate(
            """() => {
              const at = (uptime_s, counts, sum_s, errors) => ({
                uptime_s,
                unrouted: {},
                services: { iris: {
                  duration: { bounds_s: [0.1, 0.2], counts, sum_s },
                  overhead: { sum_s: sum_s / 10 },
                  first_chunk: { counts },
                  streams: { chunks: 0 },
                  errors: [{ layer: "model", error: "server_error", count: errors }],
                } },
              });
              samples.length = 0;
              remember(at(100, [1000, 0, 0], 50, 3));
              const first = flow(0, null);
              remember(at(104, [1010, 30, 0], 56, 5));
              const figures = flow(1, "iris");
              remember(at(1, [0, 0, 0], 0, 0));
              return [first, figures, samples.length, within(0.95, [0.1], [0, 7])];
            }"""
        )

    first, second, after_restart, beyond_all_bounds = figures
    assert first is None
    assert second["rate"] == 10
    assert second["average"] == pytest.approx(0.15)
    assert second["own"] == pytest.approx(0.015)
    assert second["errorShare"] == pytest.approx(0.05)
    assert second["p95"] == {"value": 0.2, "beyond": False}
    assert after_restart == 1
    assert beyond_all_bounds == {"value": 0.1, "beyond": True}


@pytest.mark.long
def test_what_was_before_the_page_was_opened_is_drawn_too(browser: Browser, demo: Demo) -> None:
    """
    From the gateway's own marks, in order, and as one line with what is polled.
    """
    with visiting(browser, demo) as visit:
        visit.page.locator("#pause").click()
        ats, kept = visit.page.evaluate(
            """() => {
              const services = { iris: { bounds: [], counts: [1], sum: 0, own: 0, errors: 0,
                                         firstChunk: [1], chunks: 0 } };
              samples.length = 0;
              samples.push({ at: 100, services }, { at: 102, services });
              recall({ marks: [90, 80, 99, 101, 110].map((at) => ({ at, services })) });
              const ats = samples.map((sample) => sample.at);
              samples.length = 0;
              for (let at = 0; at < 600; at += 2) samples.push({ at, services });
              thin(540);
              return [ats, samples.length];
            }"""
        )

    assert ats == [80, 90, 100, 102]
    assert 60 < kept < 170


@pytest.mark.long
def test_only_errors_are_listed_when_asked_for(browser: Browser, demo: Demo) -> None:
    """
    The last of them, however many requests have gone well since; each with its request's id.
    """
    with visiting(browser, demo) as visit:
        ask(f"{demo.url}/iris?twin-status=500")
        visit.page.wait_for_selector("#requests-rows tr.failed")
        visit.page.get_by_label("errors only").check()
        rows = visit.page.locator("#requests-rows tr")
        expect(rows.first).to_have_class("failed")
        assert visit.page.locator("#requests-rows tr:not(.failed)").count() == 0
        expect(visit.page.locator("#requests-rows .id").first).not_to_be_empty()


STATES = [
    ("{}", "good", "Ready"),
    (
        "{ services: { ...latest.services, iris: { ...latest.services.iris, state: 'no' } } }",
        "warn", "Ready, but for 1 service",
    ),
    (
        "{ reload: { ...latest.reload, successful: false } }",
        "warn", "Ready, but the last reload failed",
    ),
    ("{ ready: false, reason: 'draining' }", "warn", "Not ready: draining"),
    ("{ ready: false, reason: 'no token' }", "bad", "Not ready: no token"),
]  # fmt: skip


@pytest.mark.long
def test_state_is_told_in_words_and_in_the_title(browser: Browser, demo: Demo) -> None:
    """
    Not by colour alone, and where a tab among others can be seen.
    """
    with visiting(browser, demo) as visit:
        visit.page.locator("#pause").click()
        for changes, state, verdict in STATES:
            visit.page.evaluate(f"() => {{ latest = {{ ...latest, ...{changes} }}; show(); }}")
            told = visit.page.locator("#verdict")
            assert (told.inner_text(), told.get_attribute("data-state")) == (verdict, state)
            assert visit.page.title() == f"{verdict} · modelarts-gateway"


def test_policy_lets_nothing_foreign_run(browser: Browser, demo: Demo) -> None:
    """
    Were a text to get into the page as markup, it could neither run, load nor tell anything.
    """
    with visiting(browser, demo) as visit:
        refused = visit.page.evaluate(
            """async () => {
              const refused = [];
              const attempt = async (name, act) => {
                try { await act(); } catch { refused.push(name); }
              };
              await attempt("html", () => { document.body.innerHTML = "<b onclick=1>x</b>"; });
              await attempt("script", () => {
                const script = document.createElement("script");
                script.textContent = "globalThis.ran = true";
                document.body.append(script);
              });
              await attempt("fetch", () => fetch("http://127.0.0.1:1/"));
              const style = document.createElement("style");
              style.textContent = "h1 { color: rgb(1, 2, 3) !important }";
              document.head.append(style);
              const image = document.createElement("img");
              image.src = "http://127.0.0.1:1/x.png";
              document.body.append(image);
              const frame = document.createElement("iframe");
              frame.src = location.href;
              document.body.append(frame);
              return refused;
            }"""
        )
        assert refused == ["html", "script", "fetch"]
        assert visit.page.evaluate("globalThis.ran") is None
        heading = visit.page.locator("h1")
        assert heading.evaluate("element => getComputedStyle(element).color") != "rgb(1, 2, 3)"
        for directive in ("connect-src", "style-src-elem", "img-src", "frame-src"):
            assert f"error: policy: {directive}" in visit.complaints, directive
        visit.complaints.clear()


def test_nobody_else_may_show_or_read_the_page(browser: Browser, demo: Demo) -> None:
    """
    A page that rebinds its name to loopback is refused; one that frames the page sees an error.
    """
    port = demo.admin_url.rpartition(":")[2]
    page = browser.new_page()
    try:
        answer = page.goto(f"http://{REBOUND}:{port}/status")
        assert answer is not None
        assert answer.status == 421
        page.goto("about:blank")
        page.set_content(f"<iframe src='{demo.admin_url}/status'></iframe>")
        expect(page.locator("iframe")).to_be_visible()
        page.wait_for_function("frames.length === 1 && document.readyState === 'complete'")
        assert "127.0.0.1" not in page.frames[1].url
    finally:
        page.close()


@pytest.mark.long
def test_accessible_in_every_shape(browser: Browser, demo: Demo, axe: str) -> None:
    """
    axe-core finds nothing, contrast included, and the page itself never scrolls sideways.
    """
    with visiting(browser, demo, reduced_motion="reduce") as visit:
        page = visit.page
        page.wait_for_selector("#plot-rate path")
        ask(f"{demo.url}/iris?twin-status=500")
        page.wait_for_selector("#requests-rows tr.failed")
        page.locator("#pause").click()
        page.evaluate(axe)
        grounds = []
        for width, dark, options in (
            (1600, False, "{}"),
            (1280, True, "{ runOnly: ['color-contrast'] }"),
            (320, False, "{ rules: { 'color-contrast': { enabled: false } } }"),
        ):
            page.emulate_media(color_scheme="dark" if dark else "light", reduced_motion="reduce")
            page.set_viewport_size({"width": width, "height": 800})
            assert accessibility_problems(page, options) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert grounds[0] == grounds[2] != grounds[1]
        bar = page.locator(".life .left")
        assert bar.evaluate("element => getComputedStyle(element).transitionDuration") == "0s"


@pytest.mark.long
def test_order_by_keyboard(browser: Browser, demo: Demo) -> None:
    """
    Everything that can be used or scrolled is reached by Tab, in the order it is read in.
    """
    with visiting(browser, demo) as visit:
        order = []
        for _ in range(15):
            visit.page.keyboard.press("Tab")
            order.append(
                visit.page.evaluate(
                    "(at => at.id || at.getAttribute('href')"
                    " || at.getAttribute('aria-labelledby'))(document.activeElement)"
                )
            )
            outline = visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", order
        sections = ["traffic", "services", "identities", "errors", "requests", "configuration"]
        assert order == [
            "#main", "pause", *(f"#{name}" for name in sections), "service",
            "services-caption", "errors-caption", "only-failed", "requests-caption",
            "only-set", "configuration-caption",
        ]  # fmt: skip
        visit.page.goto(f"{demo.admin_url}/status")
        visit.page.keyboard.press("Tab")
        visit.page.keyboard.press("Enter")
        expect(visit.page.locator("main")).to_be_focused()


@pytest.mark.long
def test_pause_and_choice_of_service_by_keyboard(browser: Browser, demo: Demo) -> None:
    """
    Space stops every movement and starts it again; letters choose a service.
    """
    with visiting(browser, demo) as visit:
        visit.page.wait_for_function("Number.parseFloat(byId('figure-rate').textContent) > 0")
        both = float(visit.text("#figure-rate").split()[0])
        visit.page.locator("#service").focus()
        visit.page.keyboard.type("image")
        assert visit.page.locator("#service").input_value() == "/image"
        assert float(visit.text("#figure-rate").split()[0]) < both

        visit.page.locator("#pause").focus()
        visit.page.keyboard.press("Space")
        expect(visit.page.locator("#pause")).to_have_text("Resume")
        expect(visit.page.locator("#updated")).to_contain_text("paused")
        asked = len(visit.asked)
        visit.page.wait_for_timeout(1.5 * POLL_S * 1000)
        assert len(visit.asked) == asked
        visit.page.keyboard.press("Space")
        visit.until_changed("document.querySelector('#updated').textContent")


@pytest.mark.long
def test_a_screen_reader_finds_its_way_and_is_not_talked_to_death(
    browser: Browser, demo: Demo
) -> None:
    """
    Landmarks, named regions, tables and the bar; one live text, which speaks when state changes.
    """
    with visiting(browser, demo) as visit:
        page = visit.page
        for landmark in ("banner", "navigation", "main", "contentinfo"):
            assert page.get_by_role(landmark).count() == 1, landmark
        for table in ("Services, with", "Errors by layer, from", "The last requests", "Config"):
            assert page.get_by_role("table", name=table).count() == 1, table
        assert page.get_by_role("columnheader", name="Origin").count() == 1
        assert page.get_by_role("rowheader", name="iris", exact=True).count() == 1
        assert page.get_by_role("img", name="Requests per second over").count() == 1
        meter = page.get_by_role("meter", name="Token life left, default")
        assert " of 5 min 0 s left" in (meter.get_attribute("aria-valuetext") or "")

        assert page.locator("[aria-live], [role=status], [role=alert], [role=log]").count() == 1
        page.evaluate(
            """() => {
              globalThis.spoken = [];
              const verdict = document.querySelector("#verdict");
              new MutationObserver(() => spoken.push(verdict.textContent)).observe(
                verdict, { childList: true, characterData: true, subtree: true });
            }"""
        )
        visit.until_changed("document.querySelector('#updated').textContent")
        assert page.evaluate("spoken") == []

        page.context.set_offline(True)
        expect(page.locator("#verdict")).to_have_text("The gateway does not answer")
        assert page.locator("main.stale").count() == 1
        page.context.set_offline(False)
        expect(page.locator("#verdict")).to_have_text("Ready")
        assert page.evaluate("spoken") == ["The gateway does not answer", "Ready"]
        visit.complaints[:] = [text for text in visit.complaints if "ERR_INTERNET" not in text]
