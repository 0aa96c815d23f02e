// The status page: polls /status as JSON, works out rates between two polls, and draws.
// Every text goes in as text; nothing is ever parsed as HTML.
"use strict";

const POLL_MS = 2000;
const [LEAST_S, KEPT_S] = [60, 600]; // width of the plots: grows with what there is
const WINDOW_S = 10; // figures and points of the plots are over so long
const LAYERS = {
  client: "the request itself",
  gateway: "this program",
  identity: "login at IAM",
  network: "the connection to the service",
  apig: "the API gateway in front of the service",
  modelarts: "the platform",
  model: "the container’s own code",
};

const samples = []; // oldest first: {at, services: {name: {count, sum, counts, bounds, errors}}}
let latest = null; // the last document
let recalled = false; // whether what was before the page was opened has been asked for
let firstErrors = null; // errors by layer when the page was opened, to tell old from new
let timer = 0;
let paused = false;
let asking = false;

const byId = (id) => document.getElementById(id);

// Texts

function seconds(value) {
  if (value === null) return "–";
  if (value === 0) return "0";
  if (value < 0.01) return `${(value * 1000).toFixed(2)} ms`;
  if (value < 1) return `${(value * 1000).toFixed(value < 0.1 ? 1 : 0)} ms`;
  return `${value.toFixed(value < 10 ? 2 : 1)} s`;
}

function span(value) {
  const s = Math.max(0, Math.round(value));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function bytes(value) {
  if (value < 1024) return `${value} B`;
  const unit = value < 1048576 ? ["KiB", 1024] : value < 1073741824 ? ["MiB", 1048576] : ["GiB", 1073741824];
  return `${(value / unit[1]).toFixed(1)} ${unit[0]}`;
}

// What a bucket's upper bound says, and no more: nothing is known of where in it a value lies.
function atMost(bound) {
  if (bound === null) return "–";
  return bound.beyond ? `> ${onAxis(bound.value)}` : `≤ ${onAxis(bound.value)}`;
}

function number(value) {
  if (value === null) return "–";
  return value >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : value.toFixed(1);
}

function percent(part) {
  if (part === null) return "–";
  return part > 0 && part < 0.001 ? "< 0.1 %" : `${(part * 100).toFixed(part < 0.1 && part > 0 ? 1 : 0)} %`;
}

const clock = (at) => new Date(at * 1000).toISOString().slice(11, 19);
const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

// Elements are kept and only their texts change, so that a reader's place is not lost.

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

// rows: [{failed, cells: [{text, small, className, bar}]}]; the first cell is the row's header.
// Roles are said because narrow screens stack some tables, which takes them away.
function fill(body, rows, nothing) {
  const heads = body.parentElement.tHead.rows[0].cells;
  if (rows.length === 0) {
    if (!body.querySelector(".empty")) {
      const cell = make("td", "empty", nothing);
      cell.colSpan = heads.length;
      cell.setAttribute("role", "cell");
      body.replaceChildren(make("tr", "", cell));
      body.rows[0].setAttribute("role", "row");
    }
    return;
  }
  if (body.querySelector("td.empty")) body.replaceChildren();
  while (body.rows.length > rows.length) body.lastElementChild.remove();
  rows.forEach((row, index) => {
    let line = body.rows[index];
    if (!line) {
      line = make("tr");
      line.setAttribute("role", "row");
      row.cells.forEach((content, column) => {
        const cell = make(column ? "td" : "th", "", make("span"), make("small"));
        cell.setAttribute("role", column ? "cell" : "rowheader");
        if (!column) cell.scope = "row";
        if ("bar" in content) cell.append(make("div", "bar"));
        line.append(cell);
      });
      body.append(line);
    }
    line.className = row.failed ? "failed" : "";
    row.cells.forEach((content, column) => {
      const cell = line.cells[column];
      cell.className = content.className || "";
      cell.dataset.label = heads[column].textContent; // narrow screens show it beside the value
      say(cell.firstChild, content.text);
      say(cell.children[1], content.small || "");
      cell.children[1].hidden = !content.small;
      if ("bar" in content) cell.lastChild.style.width = `${content.bar * 5}rem`;
    });
  });
}

// Counting

const total = (list) => list.reduce((sum, each) => sum + each, 0);
const errorCount = (traffic) => total((traffic.errors || []).map((each) => each.count));

function all(data) {
  return { ...data.services, "": data.unrouted };
}

function remember(data) {
  const last = samples.at(-1);
  if (last && data.uptime_s < last.at) { // it was started anew
    samples.length = 0;
    firstErrors = null;
    recalled = false;
  }
  const services = {};
  for (const [name, traffic] of Object.entries(all(data))) {
    if (!traffic.duration) continue;
    services[name] = {
      bounds: traffic.duration.bounds_s,
      counts: traffic.duration.counts,
      sum: traffic.duration.sum_s,
      own: traffic.overhead.sum_s,
      errors: errorCount(traffic),
      firstChunk: traffic.first_chunk.counts,
      chunks: traffic.streams.chunks,
    };
  }
  thin(data.uptime_s - 60);
  samples.push({ at: data.uptime_s, services });
  while (samples[0].at < data.uptime_s - KEPT_S - WINDOW_S) samples.shift();
  if (!firstErrors) firstErrors = errorsByLayer(data);
}

// Of what is older than a minute, a sample in ten seconds will do.
function thin(before) {
  let i = 1;
  while (i + 1 < samples.length && samples[i + 1].at < before) {
    if (samples[i + 1].at - samples[i - 1].at < WINDOW_S) samples.splice(i, 1);
    else i += 1;
  }
}

// Fills the time before the page was opened, or while it was hidden, with the gateway's own marks.
function recall(history) {
  const own = samples.map((sample) => sample.at);
  const missing = history.marks.filter(({ at }) => at < own.at(-1) && own.every((each) => Math.abs(each - at) > 5));
  samples.push(...missing);
  samples.sort((one, other) => one.at - other.at);
}

// What happened between the sample `index` and one WINDOW_S before it, or a little more, where the
// gateway's marks are all there is; null for the first.
function flow(index, chosen) {
  const now = samples[index];
  let from = index;
  while (from > 0 && now.at - samples[from].at < WINDOW_S - 0.5 && now.at - samples[from - 1].at < 2 * WINDOW_S) from -= 1;
  if (from === index) return null;
  const then = samples[from];
  const names = chosen === null ? Object.keys(now.services) : [chosen];
  let sum = 0;
  let own = 0;
  let errors = 0;
  let bounds = [];
  let counts = [];
  let begun = [];
  let chunks = 0;
  for (const name of names) {
    const after = now.services[name];
    if (!after) continue;
    const before = then.services[name] || {
      counts: after.counts.map(() => 0), firstChunk: after.counts.map(() => 0), sum: 0, own: 0, errors: 0, chunks: 0,
    };
    bounds = after.bounds;
    counts = after.counts.map((count, i) => count - before.counts[i] + (counts[i] || 0));
    begun = after.firstChunk.map((count, i) => count - before.firstChunk[i] + (begun[i] || 0));
    chunks += after.chunks - before.chunks;
    sum += after.sum - before.sum;
    own += after.own - before.own;
    errors += after.errors - before.errors;
  }
  const count = total(counts);
  const time = now.at - then.at;
  return {
    rate: count / time,
    errorRate: errors / time,
    errorShare: count ? errors / count : null,
    average: count ? sum / count : null,
    own: count ? own / count : null,
    p95: within(0.95, bounds, counts),
    firstChunk: within(0.95, bounds, begun),
    chunkRate: chunks / time,
  };
}

// The least bound that the share `q` stays within: true, if coarse. Beyond all of them: the last.
function within(q, bounds, counts) {
  const wanted = q * total(counts);
  if (!wanted) return null;
  let below = 0;
  for (let i = 0; i < bounds.length; i += 1) {
    below += counts[i];
    if (below >= wanted) return { value: bounds[i], beyond: false };
  }
  return { value: bounds.at(-1), beyond: true };
}

function errorsByLayer(data) {
  const layers = {};
  for (const layer of Object.keys(LAYERS)) layers[layer] = { count: 0, which: {} };
  for (const traffic of Object.values(all(data))) {
    for (const { layer, error, count } of traffic.errors || []) {
      layers[layer].count += count;
      layers[layer].which[error] = (layers[layer].which[error] || 0) + count;
    }
  }
  return layers;
}

// Plots

const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return element;
}

function roundUp(value) { // to 1, 2, 2.5, 5 or 10 times a power of ten
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].find((step) => step * power >= value * 0.9999) * power;
}

// lines: [{className, values: [number or null]}] at the instants `ats`; the first gets an area.
function plot(svg, ats, lines, label) {
  const width = svg.clientWidth;
  const height = svg.clientHeight;
  if (!width) return;
  const [left, right, top, bottom] = [52, 6, 8, 20];
  const highest = Math.max(0, ...lines.flatMap((line) => line.values));
  const limit = highest ? roundUp(highest * 1.05) : 1;
  const end = ats.at(-1);
  const wide = Math.min(KEPT_S, Math.max(LEAST_S, end - ats[0]));
  const x = (at) => left + (1 - (end - at) / wide) * (width - left - right);
  const y = (value) => height - bottom - (value / limit) * (height - top - bottom);
  const shapes = [];
  for (const part of [0, 0.5, 1]) {
    shapes.push(shape("line", { class: "grid", x1: left, x2: width - right, y1: y(limit * part), y2: y(limit * part) }));
    if (highest || !part) {
      shapes.push(shape("text", { x: left - 6, y: y(limit * part) + 4, "text-anchor": "end" }, label(limit * part)));
    }
  }
  const step = [20, 60, 120].find((each) => ((width - left) * each) / wide > 70) || 300;
  for (let ago = 0; ago <= wide; ago += step) {
    const text = ago ? `−${ago < 60 || ago % 60 ? `${ago} s` : `${ago / 60} min`}` : "now";
    const anchor = ago ? (x(end - ago) < left + 24 ? "start" : "middle") : "end";
    shapes.push(shape("text", { x: x(end - ago), y: height - 5, "text-anchor": anchor }, text));
  }
  if (lines.every((line) => line.values.every((value) => value === null))) {
    shapes.push(shape("text", { x: left + (width - left) / 2, y: height / 2, "text-anchor": "middle" }, "no requests yet"));
  }
  for (const [index, line] of lines.entries()) {
    for (const run of runs(ats, line.values)) {
      const path = run.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join("L");
      if (!index && run.length > 1) {
        const [first, last] = [x(run[0][0]).toFixed(1), x(run.at(-1)[0]).toFixed(1)];
        shapes.push(shape("path", { class: "area", d: `M${first},${y(0)}L${path}L${last},${y(0)}Z` }));
      }
      shapes.push(shape("path", { class: line.className, d: `M${path}${run.length === 1 ? "h0.1" : ""}` }));
    }
  }
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(...shapes);
}

const onAxis = (value) => (value < 1 ? `${Number((value * 1000).toPrecision(3))} ms` : `${Number(value.toPrecision(3))} s`);

// Splits a line where values are missing or nobody looked.
function runs(ats, values) {
  const found = [];
  let run = [];
  values.forEach((value, index) => {
    const gap = index && ats[index] - ats[index - 1] > 1.5 * WINDOW_S;
    if (run.length && (value === null || gap)) {
      found.push(run);
      run = [];
    }
    if (value !== null && ats[index] >= ats.at(-1) - KEPT_S) run.push([ats[index], value]);
  });
  return run.length ? [...found, run] : found;
}

// Showing

function showVerdict(state, text) {
  const verdict = byId("verdict");
  verdict.dataset.state = state;
  say(verdict, text); // spoken when it changes, and only then
  document.title = `${text} · modelarts-gateway`;
}

function showTraffic() {
  const picked = byId("service").value;
  const chosen = picked === "" ? null : picked === "other:" ? "" : picked.slice(1);
  const flows = samples.map((_, index) => flow(index, chosen));
  const ats = samples.map((sample) => sample.at);
  const pick = (key) => flows.map((each) => (each ? each[key] : null));
  const now = flows.at(-1) || { rate: null, average: null, p95: null, errorShare: null, own: null };
  const traffic = Object.entries(all(latest)).filter(([name]) => chosen === null || name === chosen);
  const flight = total(traffic.map(([, each]) => each.in_flight || 0));
  const rate = byId("figure-rate");
  rate.replaceChildren(number(now.rate), now.rate === null ? "" : make("small", "", " /s"));
  say(byId("figure-average"), seconds(now.average));
  say(byId("figure-p95"), atMost(now.p95));
  say(byId("figure-errors"), percent(now.errorShare));
  byId("figure-errors").className = now.errorShare ? "bad" : "";
  say(byId("figure-flight"), number(flight));
  say(byId("figure-overhead"), seconds(now.own));

  const rates = byId("plot-rate");
  plot(rates, ats, [
    { className: "one", values: pick("rate") },
    { className: "bad", values: pick("errorRate") },
  ], number);
  const latencies = byId("plot-latency");
  plot(latencies, ats, [
    { className: "one", values: pick("average") },
    { className: "two", values: pick("p95").map((bound) => bound && bound.value) },
  ], (value) => (value ? onAxis(value) : "0"));
  const minutes = span(ats.length > 1 ? Math.min(KEPT_S, ats.at(-1) - ats[0]) : 0);
  rates.setAttribute("aria-label",
    `Requests per second over ${minutes}: now ${number(now.rate)}, errors ${percent(now.errorShare)}`);
  latencies.setAttribute("aria-label",
    `Latency over ${minutes}: now ${seconds(now.average)} on average, 95 % within: ${atMost(now.p95)}`);
}

// In flight of the limit; below it what waits, for how long, and what has become of the rest.
function turns(service) {
  const { rejected, queue_wait: wait } = service;
  const limits = service.limits || { in_flight: service.in_flight || 0, limit: null, queued: 0, breaker: "off" };
  const refused = total(Object.values(rejected || {}));
  const notes = [];
  if (limits.per_s) notes.push(`at most ${number(limits.per_s)}/s, which it accepts`);
  if (limits.queued) notes.push(`${number(limits.queued)} waiting`);
  if (wait && total(wait.counts) > wait.counts[0]) notes.push(`90 % waited ${atMost(within(0.9, wait.bounds_s, wait.counts))}`);
  if (refused) notes.push(`${number(refused)} refused: ${Object.keys(rejected).join(", ")}`);
  if (limits.breaker === "open" || limits.breaker === "half_open") notes.push(`breaker ${limits.breaker.replace("_", " ")}`);
  return {
    text: `${number(limits.in_flight)} of ${number(limits.limit)}`,
    small: notes.join(" · "),
    className: limits.breaker === "open" || limits.queued ? "number bad" : "number",
  };
}

function showServices(data) {
  const rows = Object.entries(data.services).map(([name, service]) => {
    const now = flow(samples.length - 1, name) || {
      rate: null, average: null, p95: null, errorShare: null, firstChunk: null, chunkRate: null,
    };
    const used = service.usage;
    const good = service.state === "ok";
    return {
      cells: [
        { text: name },
        { text: good ? "ready" : service.state, small: good ? `as ${service.identity}` : "", className: good ? "good" : "bad wrap" },
        { text: number(now.rate), className: "number" },
        { text: seconds(now.average), className: "number" },
        { text: atMost(now.p95), className: "number" },
        { text: atMost(now.firstChunk), className: "number" },
        {
          text: service.streams && service.streams.chunks ? number(now.chunkRate) : "–",
          small: used ? `${number(used.input)} + ${number(used.output)} tokens` : "",
          className: "number",
        },
        { text: percent(now.errorShare), className: now.errorShare ? "number bad" : "number" },
        turns(service),
        { text: `${service.connections.active} + ${service.connections.idle} idle`, className: "number" },
      ],
    };
  });
  fill(byId("services-rows"), rows, "No service is configured.");
  showChoices(Object.keys(data.services));
}

function showChoices(names) {
  const select = byId("service");
  const wanted = ["", ...names.map((name) => `/${name}`), "other:"];
  if (wanted.join() === [...select.options].map((option) => option.value).join()) return;
  const before = select.value;
  select.replaceChildren(...wanted.map((value) => {
    const option = make("option", "", value === "" ? "all" : value === "other:" ? "(no service)" : value.slice(1));
    option.value = value;
    return option;
  }));
  select.value = wanted.includes(before) ? before : "";
}

const cards = new Map();

function cardOf(name) {
  if (cards.has(name)) return cards.get(name);
  const parts = {
    state: make("span"),
    reason: make("p", "bad"),
    life: make("div", "life"),
    left: make("div", "left"),
    mark: make("div", "mark", make("span", "", "refresh")),
    facts: make("dl"),
  };
  parts.life.append(parts.left, parts.mark);
  parts.life.setAttribute("role", "meter");
  parts.life.setAttribute("aria-label", `Token life left, ${name}`);
  parts.life.setAttribute("aria-valuemin", "0");
  parts.life.setAttribute("aria-valuemax", "100");
  parts.card = make("li", "card", make("div", "", make("h3", "", name), parts.state), parts.reason, parts.life, parts.facts);
  cards.set(name, parts);
  return parts;
}

function showIdentities(data) {
  const shown = Object.entries(data.identities).map(([name, identity]) => {
    const card = cardOf(name);
    const { token } = identity;
    const left = identity.expires_at === null ? null : identity.expires_at - data.time;
    const life = token && token.life_s;
    const state = identity.locked ? "bad" : identity.usable ? "good" : "bad";
    card.state.className = state;
    say(card.state, identity.locked ? "locked: the login was refused" : identity.usable ? "usable" : "not usable");
    const refused = identity.key_refused;
    const failed = identity.last_failure ? `The last login failed: ${identity.last_failure}` : "";
    say(card.reason, identity.reason || (refused ? `${span(refused.seconds_ago)} ago ${refused.meaning}` : failed));
    card.reason.hidden = card.reason.textContent === "";
    card.life.hidden = left === null || !life;
    if (!card.life.hidden) showLife(card, left, life, identity.next_login_s);
    const logins = Object.entries(identity.logins).filter(([, count]) => count);
    const facts = [
      ["Token expires", left === null ? (token ? "never" : "") : `in ${span(left)},\n${clock(identity.expires_at)} UTC`],
      [identity.usable ? "Next refresh" : "Next login", identity.next_login_s === null ? "none due" : `in ${span(identity.next_login_s)}`],
      ["Last login", identity.last_result || "none yet"],
      ["Logins", logins.map(([result, count]) => `${count} ${result}`).join(", ") || "none"],
      ["Token", token ? `${token.fingerprint} (${bytes(token.length)})` : "none"],
      ["User", token && token.user ? `${token.user}\nat ${token.project || "no project"}` : ""],
      ["Clock skew", identity.clock_skew_s === null ? "" : `${identity.clock_skew_s.toFixed(1)} s`],
    ];
    facts.forEach(([term, text], index) => {
      if (!card.facts.children[index]) card.facts.append(make("div", "", make("dt"), make("dd")));
      const [name, value] = card.facts.children[index].children;
      say(name, term);
      say(value, text);
      card.facts.children[index].hidden = text === "";
    });
    return card.card;
  });
  const list = byId("identities-cards");
  if (shown.length !== list.children.length || shown.some((card, i) => card !== list.children[i])) {
    list.replaceChildren(...shown);
  }
}

function showLife(card, left, life, nextLogin) {
  const share = Math.min(1, Math.max(0, left / life));
  const refreshAt = nextLogin === null ? null : (left - nextLogin) / life;
  card.life.dataset.state = share < 0.1 ? "bad" : nextLogin === null ? "warn" : "good";
  card.life.setAttribute("aria-valuenow", String(Math.round(share * 100)));
  card.life.setAttribute("aria-valuetext", `${span(left)} of ${span(life)} left`);
  card.left.style.width = `${share * 100}%`;
  card.mark.hidden = refreshAt === null || refreshAt < 0 || refreshAt > 1;
  card.mark.style.left = `${refreshAt * 100}%`;
}

function showErrors(data) {
  const now = errorsByLayer(data);
  const most = Math.max(1, ...Object.values(now).map((each) => each.count));
  const rows = Object.entries(LAYERS).map(([layer, meaning]) => {
    const { count, which } = now[layer];
    const fresh = count - firstErrors[layer].count;
    const named = Object.entries(which).sort((one, other) => other[1] - one[1]);
    return {
      cells: [
        { text: layer, small: meaning },
        { text: number(fresh), className: fresh ? "number bad" : "number zero" },
        { text: number(count), className: count ? "number counted" : "number counted zero", bar: count / most },
        { text: named.map(([error, times]) => `${error} ${number(times)}`).join(", ") || "–", className: count ? "wrap" : "zero" },
      ],
    };
  });
  fill(byId("errors-rows"), rows, "");
}

function showRequests(data) {
  const shown = byId("only-failed").checked ? data.failed_requests : data.requests;
  const rows = shown.map((request) => ({
    failed: request.error !== "",
    cells: [
      { text: clock(request.time) },
      { text: request.service in data.services ? request.service : "(none)" },
      { text: request.method },
      { text: request.status ? String(request.status) : "left", className: request.error ? "bad" : "good" },
      { text: seconds(request.duration_s), className: "number" },
      { text: request.first_byte_s ? seconds(request.first_byte_s) : "–", className: "number" },
      { text: request.first_chunk_s ? seconds(request.first_chunk_s) : "–", className: "number" },
      { text: seconds(request.overhead_s), className: "number" },
      { text: bytes(request.request_bytes), className: "number" },
      { text: bytes(request.response_bytes), className: "number" },
      {
        text: request.error ? `${request.layer}: ${request.error}` : "–",
        small: request.retries ? `sent again ${plural(request.retries, "time")}` : "",
        className: request.error ? "bad" : "zero",
      },
      {
        text: request.request_id,
        small: request.upstream_request_id ? `service: ${request.upstream_request_id}` : "",
        className: "mono id",
      },
    ],
  }));
  fill(byId("requests-rows"), rows, byId("only-failed").checked ? "No request has failed." : "No request yet.");
}

function showConfiguration(data) {
  say(byId("read"), `read at ${clock(data.reload.configuration_read_at)} UTC, secrets masked`);
  const onlySet = byId("only-set").checked;
  const rows = data.configuration
    .filter(({ origin }) => !onlySet || origin !== "default")
    .map(({ key, value_shown: value, origin }) => ({
      cells: [
        { text: key, className: "mono" },
        { text: value, className: "mono wrap" },
        { text: origin, className: origin === "default" ? "zero" : "wrap" },
      ],
    }));
  fill(byId("configuration-rows"), rows, "Everything has its default.");
}

function show() {
  const data = latest;
  const unserved = Object.values(data.services).filter((service) => service.state !== "ok").length;
  if (!data.ready) {
    showVerdict(["draining", "starting"].includes(data.reason) ? "warn" : "bad", `Not ready: ${data.reason}`);
  } else if (!data.reload.successful) {
    showVerdict("warn", "Ready, but the last reload failed");
  } else if (unserved) {
    showVerdict("warn", `Ready, but for ${plural(unserved, "service")}`);
  } else {
    showVerdict("good", "Ready");
  }
  say(byId("about"), `version ${data.version} (${data.compiled ? "compiled" : "interpreted"}), up ${span(data.uptime_s)}`);
  say(byId("updated"), `${paused ? "paused at" : "updated"} ${clock(data.time)} UTC`);
  byId("main").classList.remove("stale");
  showTraffic();
  showServices(data);
  showIdentities(data);
  showErrors(data);
  showRequests(data);
  showConfiguration(data);
}

// Asking

async function ask(path) {
  try {
    const answer = await fetch(path, {
      headers: { Accept: "application/json" },
      cache: "no-store",
      signal: AbortSignal.timeout(5 * POLL_MS),
    });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null; // it has gone, or the network has
  }
}

async function poll() {
  clearTimeout(timer);
  if (asking) return;
  asking = true;
  const data = await ask("status");
  const history = data && !recalled ? await ask("status/history") : null;
  asking = false;
  schedule();
  if (data === null) {
    byId("main").classList.add("stale");
    showVerdict("bad", "The gateway does not answer");
    return;
  }
  remember(data);
  if (history) {
    recall(history);
    recalled = true;
  }
  latest = data;
  show();
}

function schedule() {
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(poll, POLL_MS);
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  say(byId("pause"), paused ? "Resume" : "Pause");
  if (paused) {
    clearTimeout(timer);
    if (latest) show();
  } else {
    poll();
  }
});
byId("service").addEventListener("change", () => latest && showTraffic());
byId("only-failed").addEventListener("change", () => latest && showRequests(latest));
byId("only-set").addEventListener("change", () => latest && showConfiguration(latest));
document.addEventListener("visibilitychange", () => {
  recalled = false; // what has happened while nobody looked is asked for
  if (document.hidden) schedule();
  else if (!paused) poll();
});
new ResizeObserver(() => latest && showTraffic()).observe(byId("plot-rate"));
poll();
