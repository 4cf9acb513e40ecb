// Elements and texts. What tenants have chosen (names, patterns, backends) only ever becomes a text node or an encoded part of a
// fragment; the page's policy would refuse markup made from it.

const create = (namespace) => (name, attributes, ...children) => {
  const node = document.createElementNS(namespace, name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (!isLeftOut(value)) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => !isLeftOut(child)));
  return node;
};

const isLeftOut = (value) => value === null || value === undefined || value === false;
/** Makes an element: name, attributes or null, children. What is null, undefined or false is left out. */
const el = create("http://www.w3.org/1999/xhtml");
const svg = create("http://www.w3.org/2000/svg");
const byId = (id) => document.getElementById(id);

/**
 * Makes the children of `parent` equal to `wanted`. Nodes are kept where they can be, so focus, selection and scrolling stay;
 * siblings with a `data-key` are kept wherever they move to.
 */
function show(parent, ...wanted) {
  const focused = document.activeElement;
  morph(parent, [...el("div", null, wanted).childNodes]);
  // A browser takes the focus from a node that moves.
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
}

function morph(parent, wanted) {
  const keyed = new Map();
  for (const child of parent.children) {
    if (child.dataset.key !== undefined) keyed.set(child.dataset.key, child);
  }
  let at = parent.firstChild;
  for (const node of wanted) {
    const key = node.dataset?.key;
    const kept = key === undefined ? at : keyed.get(key);
    if (!kept || kept.nodeName !== node.nodeName || kept.dataset?.key !== key) {
      parent.insertBefore(node, at);
      continue;
    }
    if (kept === at) at = at.nextSibling;
    else parent.insertBefore(kept, at);
    if (node.nodeType === Node.TEXT_NODE) {
      if (kept.nodeValue !== node.nodeValue) kept.nodeValue = node.nodeValue;
      continue;
    }
    for (const { name } of [...kept.attributes]) if (!node.hasAttribute(name)) kept.removeAttribute(name);
    for (const { name, value } of node.attributes) if (kept.getAttribute(name) !== value) kept.setAttribute(name, value);
    morph(kept, [...node.childNodes]);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/** A tenant's text, isolated from the direction of the text around it, and with what cannot be seen shown as `\u{202e}`. */
function foreign(text, name = "bdi", attributes = null) {
  const escaped = (c) => `\\u{${c.codePointAt(0).toString(16)}}`;
  return el(name, attributes, String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cn}\p{Co}]/gu, escaped));
}
const code = (text) => foreign(text, "code", { dir: "ltr" });

/** A link to the page of a tool or domain. A redirect belongs to the tool of its name. */
function recordLink(kind, name, text = name === "" ? "(empty name)" : foreign(name)) {
  return el("a", { href: `#/${kind === "domain" ? "domain" : "tool"}/${encodeURIComponent(name)}` }, text);
}

const UNKNOWN = "–";
const known = (format) => (value, ...rest) => (Number.isFinite(value) ? format(value, ...rest) : UNKNOWN);
/** A number with thousands separators and at most so many digits after the point. */
const number = (n, digits = 0) => n.toLocaleString("en-US", { maximumFractionDigits: digits });
const count = known((n) => number(n));
const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
const rate = known((n) => (n > 0 && n < 0.01 ? "< 0.01" : number(n, n >= 100 ? 0 : n >= 10 ? 1 : 2)));
/** The share of `part` in `whole`, as a percentage; a small one is not rounded to none, nor a large one to all. */
const share = known((part, whole) => {
  const percent = (100 * part) / whole;
  if (!whole) return UNKNOWN;
  if (percent > 0 && percent < 0.1) return "< 0.1 %";
  if (percent > 99.9 && percent < 100) return "> 99.9 %";
  return `${number(percent, percent < 10 ? 1 : 0)} %`;
});
const latency = known((ms) => (ms < 1000 ? `${number(ms, ms < 10 ? 1 : 0)} ms` : `${number(ms / 1000, 1)} s`));
const bytes = known((n) => {
  const power = n < 1024 ? 0 : Math.min(4, Math.floor(Math.log2(n) / 10));
  return `${rate(n / 1024 ** power)} ${["bytes", "KiB", "MiB", "GiB", "TiB"][power]}`;
});
/** A length of time in the largest fitting unit: `90 s`, `4 min`. */
const span = known((seconds) => {
  if (seconds < 120) return `${Math.max(0, Math.floor(seconds))} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
});
const ago = known((at, now) => `${span(now - at)} ago`);
/** A Unix time as this computer's local time, with the date if that is not today. */
const clock = known((at) => {
  const date = new Date(at * 1000);
  const time = date.toLocaleTimeString("en-GB");
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString("en-CA")} ${time}`;
});
const time = known((at) => el("time", { datetime: new Date(at * 1000).toISOString() }, clock(at)));

const sum = (numbers) => numbers.reduce((all, n) => all + n, 0);
/** How many of the requests [1xx, 2xx, 3xx, 4xx, 5xx] were answered with 5xx. */
const failed = (requests) => requests[4];

function table(name, caption, head, body) {
  const title = el("caption", { class: "unseen" }, caption);
  return el("table", { class: name }, title, el("thead", null, el("tr", null, head)), el("tbody", null, body));
}

/** A table; `columns` are texts or `[text, class]`, `rows` are `[key, cells]` with one text, node or list for each column. */
function grid(caption, columns, rows) {
  const all = columns.map((column) => [column].flat());
  const head = all.map(([text, name]) => el("th", { scope: "col", class: name }, text));
  const row = (cells) => cells.map((cell, i) => el("td", { class: all[i][1] }, cell));
  const body = rows.map(([key, cells]) => el("tr", { "data-key": key }, row(cells)));
  return table(null, caption, head, body);
}

const quiet = (...text) => el("p", { class: "quiet" }, text);

/** Rows of a list of facts; one without a value is left out. */
const facts = (pairs) => pairs.filter(([, value]) => !isLeftOut(value) && value !== "")
  .map(([term, value, tone]) => el("div", { "data-key": term, class: tone }, el("dt", null, term), el("dd", null, value)));
