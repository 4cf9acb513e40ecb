// Asks the API and shows the page of the current fragment.

/** An answer of nginx other than 200. */
class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** JSON below the page's own address, wherever that is. Rejects with `Refused`, or with another error if nginx did not answer. */
async function get(path, query, signal) {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== "");
  const url = given.length ? `${path}?${new URLSearchParams(given)}` : path;
  const response = await fetch(url, { cache: "no-store", signal: AbortSignal.any([signal, AbortSignal.timeout(10_000)]) });
  if (response.ok) return response.json();
  const body = await response.json().catch(() => null);
  const tooLong = response.status === 414 ? ": the URL is too long" : "";
  throw new Refused(response.status, body?.error ?? `nginx answered with status ${response.status}${tooLong}`);
}

/** Does `work(signal)` every `seconds`, counted from the end of one run to the begin of the next, while the page is visible. */
class Poller {
  #timer = 0;
  #run = null;

  constructor(seconds, work) {
    this.seconds = seconds;
    this.work = work;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#pause() : this.restart()));
  }

  /** Runs at once, in place of a run that has not ended. */
  restart() {
    this.#pause();
    if (!document.hidden) this.#next();
  }

  #pause() {
    clearTimeout(this.#timer);
    this.#run?.abort();
    this.#run = null;
  }

  async #next() {
    const run = new AbortController();
    this.#run = run;
    const begun = performance.now();
    await this.work(run.signal);
    if (run.signal.aborted) return;
    // A server that takes long is asked less often.
    const pause = Math.max(this.seconds * 1000, 10 * (performance.now() - begun));
    if (pause < Infinity) this.#timer = setTimeout(() => this.#next(), pause);
  }
}

// Health: the one thing that is asked all the time.

const rates = new Rates();
rates.plot(byId("request-plot"), "Requests", ([all]) => all, ([all]) => `${rate(all)}/s`);
rates.plot(byId("error-plot"), "5xx responses", ([, errors]) => errors, ([all, errors, unrouted]) => (errors === 0 ? "none"
  : `${rate(errors)}/s, ${share(errors, all)} of requests${unrouted > 0 ? `; ${rate(unrouted)}/s without a route` : ""}`));

/** The last status, when it came, and since when none comes; times of this computer, in seconds. */
const health = { status: null, at: null, lostSince: null, why: "" };

async function askStatus(signal) {
  const asked = Date.now() / 1000;
  try {
    health.status = await get("api/status", null, signal);
    health.at = Date.now() / 1000;
    if (health.lostSince !== null) asking.restart();
    health.lostSince = null;
    const { requests, now } = health.status;
    const all = Object.values(requests);
    const errors = sum(all.map(failed));
    rates.add(now, [sum(all.flat()), errors, failed(requests.miss) + failed(requests.unready)]);
  } catch (error) {
    if (signal.aborted) return;
    health.lostSince ??= asked;
    health.why = error instanceof Refused ? error.message : "";
  }
  showHealth();
}

function showHealth() {
  const { status, at, lostSince, why } = health;
  const tone = lostSince !== null ? "bad" : TONES[status.summary.state] ?? "warn";
  const trouble = `This page ${why ? "gets no status from" : "cannot reach"} nginx since ${clock(lostSince)}${why && `: ${why}`}`;
  const shown = at === null ? "It tries again every 2 s." : `What stands below is from ${clock(at)}.`;
  const summary = lostSince === null ? status.summary.text : `${trouble}. ${shown}`;
  byId("health").className = `band ${tone}`;
  document.body.toggleAttribute("data-stale", lostSince !== null);
  show(byId("summary"), summary);
  show(byId("hold"), status && lostSince === null ? holdBox(status) : []);
  announce(lostSince !== null ? "lost" : status.summary.state, summary);
  if (!status) return;
  show(byId("table"), foreign(status.table));
  show(byId("facts"), statusFacts(status));
  const rejected = byId("rejected-count");
  rejected.hidden = status.rejected.routes === 0;
  show(rejected, count(status.rejected.routes));
  show(byId("footer"), `urlproxy ${status.build.version}, build ${status.build.id}, nginx ${status.build.nginx}`);
  rates.draw();
  setTitle();
}

/** Reads a summary out when its state is another one, not at each change of a number in it. */
let announced = null;
function announce(state, text) {
  if (state === announced) return;
  announced = state;
  byId("announcement").textContent = text;
}

// Pages: one for each path in the fragment.

let page = null;
const section = { overview: byId("overview"), explain: byId("explain"), detail: byId("detail") };

function setTitle() {
  const state = health.lostSince !== null ? "unreachable" : health.status?.summary.state.replace("_", " ");
  document.title = [page?.title, state, health.status?.table, "urlproxy"].filter(Boolean).join(" · ");
}

/** Shows what `ask()` finds, or why it could not be found, above what was found before if that answers the same question. */
async function fill(target, signal, ask, nodes, isSame = true) {
  try {
    const answer = await ask();
    if (!signal.aborted) show(target, nodes(answer));
  } catch (error) {
    if (signal.aborted) return;
    const text = error instanceof Refused ? error.message : "nginx did not answer";
    const isGone = error instanceof Refused && error.status === 404;
    const older = [...target.children].filter((child) => !child.classList.contains("failure"));
    const kept = isGone || !isSame ? [] : older.map((child) => child.cloneNode(true));
    show(target, el("p", { class: "note warn failure" }, foreign(text), kept.length > 0 && "; what follows is older"), kept);
  }
}

const toolsQuery = () => ({
  search: page.query.get("search") ?? "",
  sort: SORTS.includes(page.query.get("sort")) ? page.query.get("sort") : "rate",
  limit: /^\d{1,4}$/.test(page.query.get("limit")) ? page.query.get("limit") : "50",
});

/** The address of the list of tools with some of its parameters changed. */
function toolsLink(changes) {
  const { search, sort, limit } = { ...toolsQuery(), ...changes };
  const set = Object.entries({ search, sort, limit: String(limit) }).filter(([, value]) => !["", "rate", "50"].includes(value));
  return set.length ? `#/?${new URLSearchParams(set)}` : "#/";
}

const askTools = (signal) => fill(byId("tools"), signal, () => get("api/tools", toolsQuery(), signal), (answer) => {
  const { search, sort } = toolsQuery();
  const { tools, domains } = health.status?.counts ?? {};
  const matching = search ? `${count(answer.matching)} of ${count(tools + domains)}` : count(answer.matching);
  show(byId("matching"), `${matching} ${domains > 0 ? "tools and domains" : "tools"}`);
  return toolsTable(answer, sort, toolsLink);
});

const askExplanation = (signal) => {
  const [host, uri] = ["host", "uri"].map((name) => page.query.get(name) ?? "");
  if (!uri) return show(byId("explanation"));
  return fill(byId("explanation"), signal, () => get("api/explain", { host, uri }, signal), explanation, false);
};

const detail = (path, query, nodes) => (signal) => fill(byId("detail-body"), signal, () => get(path, query, signal), nodes);

/** The page of a fragment such as `#/tool/hello` or `#/?search=x`. */
function pageOf(fragment) {
  const [path, query = ""] = fragment.replace(/^#/, "").split(/\?(.*)/s);
  const found = { path, query: new URLSearchParams(query) };
  const record = /^\/(tool|domain)\/(.*)/s.exec(path);
  if (record) {
    const [, kind, encoded] = record;
    const name = decoded(encoded);
    // A URL cannot have these names as a segment, not even encoded.
    const isReachable = name !== null && ![".", ".."].includes(name);
    const ask = isReachable ? detail(`api/routes/${encodeURIComponent(name)}`, kind === "domain" && { kind }, recordPage)
      : () => show(byId("detail-body"), el("p", null, `A ${kind} of this name has no page: no URL can name it.`));
    const title = `${kind === "domain" ? "Domain" : "Tool"} ${name ?? encoded}`;
    return { ...found, key: path, title, section: "detail", seconds: 3, ask };
  }
  const pages = {
    "/changes": { title: "Changes", section: "detail", seconds: 2, ask: detail("api/changes", { limit: 500 }, changesPage) },
    "/rejected": { title: "Rejected routes", section: "detail", seconds: 5, ask: detail("api/rejected", null, rejectedPage) },
    "/explain": { title: "Explain", section: "explain", seconds: Infinity, ask: askExplanation },
    "/": { title: null, section: "overview", seconds: 4, ask: askTools },
  };
  const key = Object.hasOwn(pages, path) ? path : "/";
  return { ...found, key, ...pages[key] };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

const asking = new Poller(Infinity, () => {});
function open() {
  const before = page;
  page = pageOf(location.hash);
  asking.seconds = page.seconds;
  asking.work = page.ask;
  for (const [name, node] of Object.entries(section)) node.hidden = name !== page.section;
  for (const link of document.querySelectorAll("nav a")) {
    if (pageOf(link.hash).key === page.key) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (before?.key !== page.key) {
    if (page.section === "detail") {
      show(byId("detail-title"), foreign(page.title));
      show(byId("detail-body"), quiet("Asking nginx ..."));
    }
    // The first page is read from its top; a later one begins at its title.
    if (before) section[page.section].querySelector("h1").focus();
    if (before) scrollTo(0, 0);
  }
  const { search } = toolsQuery();
  // To set the same text again would move the cursor.
  if (page.section === "overview" && byId("search").value !== search) byId("search").value = search;
  if (page.section === "explain") {
    byId("explain-url").value = page.query.get("uri") ?? "";
    byId("explain-host").value = page.query.get("host") ?? "";
  }
  setTitle();
  asking.restart();
}

// Input.

let typing = 0;
byId("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    history.replaceState(null, "", toolsLink({ search: byId("search").value, limit: 50 }));
    open();
  }, 100);
});
byId("search-form").addEventListener("submit", (event) => event.preventDefault());

/** Splits a URL as it was typed; the browser's own parser would resolve its dot segments and encode it. */
function hostAndUri(text, host) {
  const absolute = /^[a-z][a-z0-9+.-]*:\/\/([^/?#]*)([^#]*)/i.exec(text);
  const bare = absolute ?? (/^[/?]/.test(text) ? null : /^([^/?#]*)([^#]*)/.exec(text));
  const [name, rest] = bare ? [bare[1].replace(/^.*@/, ""), bare[2]] : [host, text.replace(/#.*$/s, "")];
  return { host: name, uri: rest.startsWith("/") ? rest : `/${rest}` };
}
byId("explain-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const { host, uri } = hostAndUri(byId("explain-url").value.trim(), byId("explain-host").value.trim());
  const wanted = explainLink(uri, host);
  if (location.hash === wanted) open();
  else location.hash = wanted;
});

function goToSearch() {
  if (page.section !== "overview") {
    history.pushState(null, "", "#/");
    open();
  }
  byId("search").focus();
}
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  goToSearch();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input")) return;
  event.preventDefault();
  goToSearch();
});

addEventListener("hashchange", open);
// On a phone, the tools come before the details.
byId("details").open = matchMedia("(min-width: 46rem)").matches;
new Poller(2, askStatus).restart();
open();
