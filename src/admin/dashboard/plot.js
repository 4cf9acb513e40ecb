// Rates of the last five minutes, as lines.

const PLOTTED_SECONDS = 300;
/** Without a sample for so long, a line is interrupted: the page was hidden, or nginx did not answer. */
const GAP_SECONDS = 10;

/** Rates between successive counts; pointing at one plot marks the same moment in all. */
class Rates {
  points = [];
  #last = null;
  #plots = [];
  #marked = null;

  /** Adds the counters of a moment. Counters that went back belong to a new zone, and begin a new line. */
  add(at, counters) {
    const last = this.#last;
    this.#last = { at, counters };
    this.points = this.points.filter((point) => point.at > at - PLOTTED_SECONDS);
    if (!last || at <= last.at) return;
    const seconds = at - last.at;
    const rates = counters.map((n, i) => (n - last.counters[i]) / seconds);
    if (seconds <= GAP_SECONDS && rates.every((n) => n >= 0)) this.points.push({ at, from: last.at, rates });
  }

  /** Draws `value(rates)` into a figure; `words(rates)` describes a point. */
  plot(figure, title, value, words) {
    const area = svg("path", { class: "area" });
    const line = svg("path", { class: "line" });
    const mark = svg("path", { class: "mark" });
    const top = el("span", { class: "top" });
    const text = el("output", { "aria-live": "off" });
    const frame = el("div", { class: "frame", tabindex: "0", role: "img" },
      svg("svg", { viewBox: `0 0 ${PLOTTED_SECONDS} 100`, preserveAspectRatio: "none", "aria-hidden": "true" },
        svg("path", { class: "rule", d: `M0 .5H${PLOTTED_SECONDS}M0 50H${PLOTTED_SECONDS}` }), area, line, mark), top);
    figure.append(el("figcaption", null, el("span", null, title), text), frame,
      el("div", { class: "axis", "aria-hidden": "true" }, el("span", null, "5 min ago"), el("span", null, "now")));
    this.#plots.push({ title, value, words, area, line, mark, top, text, frame });

    frame.addEventListener("pointermove", (event) => {
      const { left, width } = frame.getBoundingClientRect();
      this.#markAt(this.#end() - PLOTTED_SECONDS * (1 - (event.clientX - left) / width));
    });
    for (const leave of ["pointerleave", "blur"]) frame.addEventListener(leave, () => this.#mark(null));
    frame.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || this.points.length === 0) return;
      event.preventDefault();
      const at = this.points.indexOf(this.#marked);
      const next = at < 0 ? this.points.length - 1 : Math.min(this.points.length - 1, Math.max(0, at + step));
      this.#mark(this.points[next]);
    });
  }

  #end() {
    return this.#last?.at ?? 0;
  }

  #markAt(moment) {
    let nearest = null;
    for (const point of this.points) {
      if (!nearest || Math.abs(point.at - moment) < Math.abs(nearest.at - moment)) nearest = point;
    }
    this.#mark(nearest);
  }

  #mark(point) {
    this.#marked = point;
    this.draw();
  }

  draw() {
    if (!this.points.includes(this.#marked)) this.#marked = null;
    const x = (at) => (PLOTTED_SECONDS - (this.#end() - at)).toFixed(2);
    for (const { title, value, words, area, line, mark, top, text, frame } of this.#plots) {
      const values = this.points.map((point) => value(point.rates));
      const highest = Math.max(0, ...values);
      const ceiling = roundUp(highest);
      const y = (n) => (100 - (96 * n) / ceiling).toFixed(2);
      let lines = "";
      let areas = "";
      this.points.forEach((point, i) => {
        const joined = i > 0 && this.points[i - 1].at === point.from;
        // A point alone is as wide as the time that it is the rate of.
        if (!joined) lines += `M${x(point.from)} ${y(values[i])}`;
        if (!joined) areas += `M${x(point.from)} 100V${y(values[i])}`;
        lines += `L${x(point.at)} ${y(values[i])}`;
        areas += `L${x(point.at)} ${y(values[i])}`;
        if (this.points[i + 1]?.from !== point.at) areas += "V100Z";
      });
      line.setAttribute("d", lines);
      area.setAttribute("d", areas);
      mark.setAttribute("d", this.#marked ? `M${x(this.#marked.at)} 0V100` : "");
      top.textContent = `${rate(ceiling)}/s`;
      const shown = this.#marked ?? this.points.at(-1);
      const moment = this.#marked ? `${clock(this.#marked.at)}  ` : "";
      text.textContent = shown ? moment + words(shown.rates) : "waiting for a second sample";
      const range = `Highest in 5 minutes: ${rate(highest)}/s. Arrow keys move through time.`;
      frame.setAttribute("aria-label", `${title}: ${text.textContent}. ${range}`);
    }
  }
}

/** The next of 1, 2, 5, 10, 20 ... at or above `n`. */
function roundUp(n) {
  if (n <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= n);
}
