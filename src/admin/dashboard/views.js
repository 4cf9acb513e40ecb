// What the API's answers look like. Each function turns an answer into nodes and changes nothing else.

const TONES = { in_step: "good", loading: "bad", snapshot: "warn", disconnected: "warn", held: "warn", not_ready: "warn" };
const RESULTS = {
  route: "routed", default: "to the default tool", redirect: "redirected", miss: "missed", unready: "before the first load",
};

/** The facts below the summary; each tells trouble by its tone. */
function statusFacts(status) {
  const { now, source, counts, capacity, snapshot, rejected, keepalive, requests } = status;
  const each = (counts) => Object.entries(counts).filter(([, n]) => n > 0).map(([name, n]) => `${name} ${count(n)}`).join(", ");
  const memory = share(capacity.memory_used_bytes, capacity.memory_bytes);
  const isFull = status.refused_total + status.displaced_total > 0;
  const used = keepalive.reused_total + keepalive.opened_total;
  return facts([
    ["Ready", status.ready ? "yes" : ["no: ", foreign(status.not_ready_because)], status.ready ? null : "warn"],
    ["Source", [
      foreign(source.url), source.connected ? ", connected" : ", not connected",
      source.since && ` for ${span(now - source.since)}`, source.error && [": ", foreign(source.error)],
    ], source.connected ? null : "warn"],
    ["Last change", status.last_change_at === null ? "none yet"
      : `${ago(status.last_change_at, now)} (${plural(status.generation, "change")} in all)`],
    ["Last resync", source.last_resync_at === null ? "none yet"
      : `${ago(source.last_resync_at, now)} (in all: ${each(source.resyncs)})`,
      source.last_resync_at === null ? "warn" : null],
    ["Last push", source.last_push_at === null ? "none yet" : ago(source.last_push_at, now)],
    ["Table", [
      plural(counts.tools, "tool"), plural(counts.redirects, "redirect"), plural(counts.domains, "domain"),
      plural(counts.routes, "route"),
    ].join(", ")],
    ["Memory", [
      `${memory} of ${bytes(capacity.memory_bytes)}, room for ${plural(capacity.records, "record")}`,
      isFull && `; no space for ${plural(status.refused_total, "new record")} and ${plural(status.displaced_total, "change")}`,
    ], isFull || capacity.memory_used_bytes > 0.9 * capacity.memory_bytes ? "warn" : null],
    ["Rejected", rejected.routes === 0 ? "no routes"
      : el("a", { href: "#/rejected" }, `${plural(rejected.routes, "route")} (${each(rejected.by_reason)})`),
      rejected.routes === 0 ? null : "warn"],
    ["Snapshot", snapshot && [
      snapshot.failed && "the last write failed; ",
      snapshot.written_at === null ? "not written yet" : `written ${ago(snapshot.written_at, now)}`, ": ", foreign(snapshot.path),
    ], snapshot?.failed ? "warn" : null],
    ["Requests", Object.entries(RESULTS).map(([result, words]) => [sum(requests[result]), words])
      .filter(([n, words]) => n > 0 || words === RESULTS.route).map(([n, words]) => `${count(n)} ${words}`).join(", ")],
    ["Connections", [`${count(keepalive.idle)} kept idle`, used > 0 && `, ${share(keepalive.reused_total, used)} reused`,
      keepalive.evicted_total > 0 && `, ${count(keepalive.evicted_total)} evicted`]],
  ]);
}

/** What an operator can do about a removal that is held back. */
function holdBox({ held, now }) {
  if (!held) return [];
  const end = held.ends_at === null ? "until Redis can be compared again and the time of the hold has passed"
    : `${span(held.ends_at - now)} are left unless the routes come back`;
  return [el("p", null, `Held for ${span(now - held.since)}; ${end}. To accept the removal now: `,
    el("kbd", null, "urlproxyctl accept-withdrawal"), held.accept_file && [" (it writes ", code(held.accept_file), ")"])];
}

const COLUMNS = [
  { sort: "name", title: "Tool", order: "ascending", class: "name", cell: nameOf },
  { title: "Backends", class: "wide backends", cell: backendsOf },
  { sort: "rate", title: "Requests/s", class: "n", cell: (tool) => rate(tool.rate) },
  { title: "5xx now", class: "n", cell: (tool) => alarming(tool.error_rate, tool.rate) },
  { sort: "latency", title: "Mean time", class: "n", cell: (tool) => latency(tool.mean_milliseconds) },
  { sort: "requests", title: "Requests", class: "n wide", cell: (tool) => count(sum(tool.requests)) },
  { sort: "errors", title: "5xx in all", class: "n wide", cell: (tool) => alarming(failed(tool.requests), sum(tool.requests)) },
];
const SORTS = COLUMNS.map((column) => column.sort).filter(Boolean);

const meanLatency = ({ requests, milliseconds }) => milliseconds / sum(requests);
const isAlarming = (part, whole) => part / whole >= 0.05;
const alarming = (part, whole) => el("span", { class: isAlarming(part, whole) ? "bad" : null }, share(part, whole));

function nameOf(tool) {
  const troubles = [
    tool.unavailable > 0 && `${count(tool.unavailable)} of ${plural(tool.backends, "backend")} unavailable`,
    tool.rejected > 0 && `${plural(tool.rejected, "route")} rejected`,
  ];
  return [
    recordLink(tool.kind, tool.name), tool.kind === "domain" && el("span", { class: "quiet" }, " (domain)"),
    troubles.filter(Boolean).map((text) => el("span", { class: "tag warn" }, text)),
  ];
}

function backendsOf(tool) {
  if (tool.backends === 0) return "none";
  return [code(tool.backend), tool.backends > 1 && el("span", { class: "quiet" }, ` and ${count(tool.backends - 1)} more`)];
}

/** The table of tools; `link({ sort })` is the address of the same list in another order. */
function toolsTable(answer, sorted, link) {
  const head = COLUMNS.map(({ sort, title, order = "descending", class: name }) => {
    const aria = sort && (sort === sorted ? order : "none");
    return el("th", { scope: "col", class: name, "aria-sort": aria }, sort ? el("a", { href: link({ sort }) }, title) : title);
  });
  const body = answer.items.map((tool) => el("tr", { "data-key": `tool ${tool.name}` },
    COLUMNS.map((column) => el("td", { class: column.class }, column.cell(tool)))));
  const listed = answer.items.length;
  const limit = listed < 200 ? 200 : 1000;
  const more = listed < limit ? el("a", { href: link({ limit }) }, "Show more") : "Search to see others.";
  return [
    table("tools", `Tools, sorted by ${sorted}`, head, body),
    listed === 0 && quiet("No tools."),
    answer.matching > listed && quiet(`${count(answer.matching - listed)} more. `, more),
  ];
}

/** A backend with its health, which urlproxy tracks for several backends with addresses. */
function backendItem(backend) {
  const [tone, words] = {
    up: ["good", "up"],
    unavailable: ["bad", backend.until === null ? "unavailable" : ["unavailable until ", time(backend.until)]],
    untracked: ["quiet", "health not tracked"],
  }[backend.health] ?? ["", foreign(backend.health)];
  return el("li", null, code(backend.url), " ", el("span", { class: `tag ${tone}` }, words));
}
const backendList = (backends) => el("ul", { class: "plain" }, backends.map(backendItem));

function originText(origin) {
  if (!origin) return el("span", { class: "quiet" }, "unknown");
  const { source, owner, host, since } = origin;
  const where = host && [" at ", foreign(host)];
  return [source && foreign(source), owner && [" for ", foreign(owner)], where, since && [" since ", time(since)]];
}

/** The page of a tool or domain. */
function recordPage(tool) {
  const example = tool.kind === "domain" ? explainLink("/", tool.name) : explainLink(`/${encodeURIComponent(tool.name)}/`, "");
  const total = sum(tool.requests);
  const classes = tool.requests.map((n, i) => n > 0 && `${count(n)} ${i + 1}xx`).filter(Boolean).join(", ");
  const routes = tool.routes.map(({ pattern, backends }, i) => [i, [
    code(pattern), backendList(backends), originText(Object.hasOwn(tool.origin ?? {}, pattern) && tool.origin[pattern]),
  ]]);
  return [
    el("dl", { class: "facts" }, facts([
      ["Now", tool.rate === null ? "not among the busiest tools"
        : `${rate(tool.rate)} requests/s${tool.rate > 0 ? `, ${share(tool.error_rate, tool.rate)} of them 5xx` : ""}`],
      ["Requests", `${count(total)}${classes && `: ${classes}`}`],
      ["5xx", share(failed(tool.requests), total), isAlarming(failed(tool.requests), total) ? "warn" : null],
      ["Mean time", `${latency(tool.mean_milliseconds)} now, ${latency(meanLatency(tool))} in all`],
      ["Sent", bytes(tool.bytes)],
      ["Redirect", tool.redirect && "to its canonical host"],
      ["Explain", el("a", { href: example }, "a request that comes here")],
    ])),
    el("h2", null, "Routes, in the order in which they are tried"),
    routes.length === 0 ? quiet("None.") : grid("Routes", ["Pattern", "Backends", "Origin"], routes),
    tool.rejected.length > 0 && [
      el("h2", null, "Rejected routes"),
      grid("Rejected routes", ["Pattern", "Reason", "Text"], tool.rejected.map((entry, i) => [i, rejectedCells(entry)])),
    ],
    el("h2", null, "Response times"),
    tool.latency ? histogram(tool.latency) : quiet("Measured for the busiest tools only (metrics_tools)."),
    el("h2", null, "Recent changes"),
    changesTable(tool.changes, false),
  ];
}

function histogram({ le, counts }) {
  const total = sum(counts);
  const most = Math.max(1, ...counts);
  const bar = (n) => svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { width: (100 * n) / most, height: 10 }));
  return grid("Response times", [["Up to", "n"], ["Requests", "n"], ["Share", "n"], ["", "meter"]],
    counts.map((n, i) => [i, [i < le.length ? latency(le[i] * 1000) : "longer", count(n), share(n, total), bar(n)]]));
}

const rejectedCells = ({ pattern, reason, text }) => [pattern === null ? "all routes" : code(pattern), reason, foreign(text)];

function rejectedPage(answer) {
  if (answer.total === 0) return [el("p", null, "No route is rejected.")];
  return [
    el("p", null, `${plural(answer.total, "route")} in Redis that urlproxy does not serve. Other routes of a tool are served.`,
      answer.items.length < answer.total && ` Only ${count(answer.items.length)} are listed.`),
    grid("Rejected routes", ["Key in Redis", "Pattern", "Reason", "Text"], answer.items.map((entry, i) => [i, [
      recordLink(entry.kind, entry.name, code(entry.key)), ...rejectedCells(entry),
    ]])),
  ];
}

/** Changes, newest first; `named` if they are of several records. */
function changesTable(changes, named) {
  if (changes.length === 0) return quiet("None that is still known.");
  const tones = { added: "good", changed: "quiet", removed: "warn" };
  const name = ({ kind, name }) => [recordLink(kind, name), kind !== "tool" && ` (${kind})`];
  const rows = changes.map((change, i) => [change.seq ?? i, [
    time(change.at), el("span", { class: `tag ${tones[change.change]}` }, change.change), ...(named ? [name(change)] : []),
    count(change.routes), change.backend ? code(change.backend) : UNKNOWN,
  ]]);
  return grid("Changes", ["Time", "Change", ...(named ? ["Name"] : []), ["Routes", "n wide"], "Backend"], rows);
}

function changesPage(answer) {
  return [
    answer.missed > 0 && quiet(`${plural(answer.missed, "older change is", "older changes are")} no longer kept.`),
    changesTable(answer.items.toReversed(), true),
  ];
}

const explainLink = (uri, host) => `#/explain?${new URLSearchParams(host ? { host, uri } : { uri })}`;

function explanation(answer) {
  if (answer.decisions.length === 0) return [el("p", null, "No location of this nginx uses the table.")];
  // Null: only a regular expression may match, or this is a default server.
  const isOwn = (decision) => decision.server_matches === true && decision.location_matches !== false;
  const isMatched = answer.decisions.some(isOwn);
  const unmatched = answer.host ? "No location is known to serve this URL; these are the decisions of all locations."
    : "Without a host, these are the decisions of all locations.";
  return [
    !isMatched && el("p", { class: "note warn" }, unmatched),
    answer.decisions.map((decision) => decisionBox(decision, isMatched && !isOwn(decision))),
    answer.omitted > 0 && quiet(`${plural(answer.omitted, "location")} that match worse are left out.`),
  ];
}

const MATCHES = new Map([[false, " (does not match)"], [null, " (may match)"]]);

/** One decision; `isOther` if another one is that of the URL's own location. */
function decisionBox(decision, isOther) {
  const { result, normalized, record, patterns, backends } = decision;
  const tone = { route: "good", default: "good", redirect: "good", miss: "warn", unready: "bad" }[result];
  const servers = decision.server.map((name, i) => [i > 0 && ", ", foreign(name)]);
  const domain = decision.domain && [" below ", foreign(decision.domain)];
  const choice = backends.length === 1 ? "Backend" : "Backends, of which one gets the request";
  return el("article", { class: `decision ${isOther ? "other" : ""}` },
    el("h2", null, el("span", { class: `tag ${tone}` }, result), " ", foreign(decision.why)),
    el("dl", { class: "facts" }, facts([
      ["Server", [servers.length ? servers : "without a name", MATCHES.get(decision.server_matches)]],
      ["Location", [code(decision.location), MATCHES.get(decision.location_matches)]],
      ["Mode", [decision.mode, domain]],
      ["Host", normalized?.host && foreign(normalized.host)],
      ["Path", normalized?.path && code(normalized.path)],
      ["Tool", normalized?.tool && [recordLink("tool", normalized.tool), normalized.rest && [", then ", code(normalized.rest)]]],
      ["Answered by", record && recordLink(decision.mode === "domain" ? "domain" : "tool", record)],
      ["Status", decision.status === null ? "that of the backend" : String(decision.status)],
      ["Redirect", decision.redirect && code(decision.redirect)],
      ["Origin", decision.origin && originText(decision.origin)],
    ])),
    patterns.length > 0 && grid("Patterns tried", ["Record", "Pattern", "Tested", "Outcome"], patterns.map((tried, i) => [i, [
      foreign(tried.record), code(tried.pattern), code(tried.tested),
      tried.matched ? el("b", null, "✓ matches") : el("span", { class: "quiet" }, "✗ does not match"),
    ]])),
    backends.length > 0 && [el("h3", null, choice), backendList(backends)]);
}
