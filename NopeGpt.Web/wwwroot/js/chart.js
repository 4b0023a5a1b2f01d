// The charts of one run: they share the range, the crosshair and the view's settings. Data comes as buckets of (x, min, max, mean,
// smoothed) from /api/runs/{id}/series and never passes through the circuit.
import uPlot from "../vendor/uplot/uPlot.esm.js";
import { follow, isLive } from "./live.js";

const pollLive = 15_000, pollAlone = 2_000, shortest = 400, mostHeard = 1000;

/** Metrics between two x values (undefined: all of it), each as arrays; one without points has empty ones. And the number of the last event in them. */
async function readSeries(run, metrics, view, buckets) {
  const query = new URLSearchParams([...metrics.map(m => ["metric", m]), ["x", view.x], ["buckets", buckets], ["smooth", view.smoothing]]);
  if (view.from !== undefined) { query.set("from", view.from); query.set("to", view.to); }
  const answer = await fetch(`api/runs/${encodeURIComponent(run)}/series?${query}`);
  const all = metrics.map(() => ({ x: [], min: [], max: [], mean: [], smoothed: [] }));
  if (answer.status === 404) return { all, sequence: 0 };
  if (!answer.ok) throw new Error(`the series could not be read (${answer.status})`);
  const bytes = new DataView(await answer.arrayBuffer());
  let at = 0;
  for (const one of all) {
    const count = bytes.getInt32(at, true);
    at += 4;
    for (let i = 0; i < count; i++, at += 24) {
      one.x.push(bytes.getFloat64(at, true));
      one.min.push(bytes.getFloat32(at + 8, true));
      one.max.push(bytes.getFloat32(at + 12, true));
      one.mean.push(bytes.getFloat32(at + 16, true));
      one.smoothed.push(bytes.getFloat32(at + 20, true));
    }
  }
  return { all, sequence: Number(answer.headers.get("X-Last-Sequence")) };
}

/** Adds a value to the end of a series, smoothed as the server does it; the next reading puts right what buckets and restarts change. */
function append(series, x, value, weight) {
  const before = series.smoothed.findLast(Number.isFinite);
  let smoothed = value;
  if (Number.isFinite(value) && weight > 0 && before !== undefined) {
    const rest = weight ** series.x.length;
    smoothed = (before * (1 - rest) * weight + (1 - weight) * value) / (1 - rest * weight);
  }
  series.x.push(x);
  for (const name of ["min", "max"]) series[name].push(Number.isFinite(value) ? value : NaN);
  series.mean.push(value);
  series.smoothed.push(smoothed);
}

function short(value) {
  if (value == null) return "–";
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  for (const [unit, name] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])
    if (size >= unit) return (value / unit).toPrecision(3) + name;
  if (size === 0) return "0";
  if (size < 1e-4) return value.toExponential(1);
  return size < 10 ? value.toPrecision(3) : value.toPrecision(4).replace(/\.?0+$/, "");
}

// Axis labels must differ from each other, so they take their digits from the distance between two of them.
function axisLabels(_, splits) {
  const given = splits.filter(s => s != null);
  const step = given.length > 1 ? Math.abs(given[1] - given[0]) : 1;
  const top = Math.max(...given.map(Math.abs), 0);
  const [unit, name] = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]].find(u => top >= 10 * u[0] || (top >= u[0] && step >= u[0] / 10)) ?? [1, ""];
  // 0.25 needs two digits, although 0.3 is of the same size.
  let digits = 0;
  while (digits < 8 && Math.abs(step / unit - Number((step / unit).toFixed(digits))) > 1e-6 * step / unit) digits++;
  return splits.map(s => {
    if (s == null) return "";
    if (s === 0) return "0";
    if (top < 1e-4) return s.toExponential(step < Math.abs(s) / 10 ? 1 : 0);
    return (s / unit).toFixed(digits) + name;
  });
}

function clock(seconds) {
  const time = new Date(seconds * 1000);
  return time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

class Chart {
  constructor(board, host, spec) {
    this.board = board;
    this.host = host;
    this.spec = spec;
    this.canvas = host.querySelector("[data-plot]");
    this.legend = host.querySelector("[data-legend]");
    this.series = spec.metrics.map(() => ({ x: [], min: [], max: [], mean: [], smoothed: [] }));
    this.resizer = new ResizeObserver(() => this.plot?.setSize(this.size()));
    this.resizer.observe(this.canvas);
    this.buildLegend();
  }

  size() { return { width: Math.max(120, this.canvas.clientWidth), height: this.spec.height }; }

  buildLegend() {
    this.values = this.spec.metrics.map(metric => {
      const entry = document.createElement("span");
      const mark = document.createElement("i");
      mark.style.background = `var(--chart-${metric.color})`;
      const value = document.createElement("b");
      entry.append(mark, this.spec.metrics.length > 1 ? metric.label + " " : "", value);
      this.legend.append(entry);
      return value;
    });
    this.where = document.createElement("span");
    this.legend.append(this.where);
  }

  /** A value of each metric that the event has. */
  add(event) {
    const { x, smoothing } = this.board.view;
    const at = x === "tokens" ? event.tokens : x === "wall" ? Date.parse(event.time) / 1000 : event.step;
    this.spec.metrics.forEach((metric, i) => {
      // "NaN" and "Infinity" come as text.
      if (metric.name in event.values) append(this.series[i], at, Number(event.values[metric.name]), smoothing);
    });
  }

  show() {
    const view = this.board.view;
    const hide = value => (Number.isFinite(value) && !(view.log && this.spec.log && value <= 0) ? value : null);
    const tables = this.series.map(s => [s.x, s.max.map(hide), s.min.map(hide), s.mean.map(hide), s.smoothed.map(hide)]);
    const data = uPlot.join(tables);
    const key = [view.log && this.spec.log, view.x, document.documentElement.dataset.theme, ...this.spec.metrics.map(m => this.isSmoothed(m))].join();
    if (this.plot && this.key === key) this.plot.setData(data, false);
    else this.build(key, data);
    this.rescale();
    this.describe();
  }

  isSmoothed(metric) { return metric.smooth && this.board.view.smoothing > 0; }

  rescale() {
    const { from, to } = this.board.view;
    const xs = this.plot.data[0];
    const low = from ?? xs[0] ?? 0, high = to ?? xs[xs.length - 1] ?? 1;
    this.plot.setScale("x", { min: low, max: high > low ? high : low + 1 });
  }

  build(key, data) {
    this.plot?.destroy();
    this.key = key;
    const view = this.board.view;
    const css = getComputedStyle(this.host);
    const color = name => css.getPropertyValue(name).trim();
    const ink = color("--chart-ink"), rule = color("--chart-rule");
    const font = "11px " + css.getPropertyValue("--sans");
    const series = [{}], bands = [];
    for (const metric of this.spec.metrics) {
      const line = color(`--chart-${metric.color}`), smoothed = this.isSmoothed(metric), first = series.length;
      series.push({ stroke: "transparent", width: 0, points: { show: false } }, { stroke: "transparent", width: 0, points: { show: false } });
      bands.push({ series: [first, first + 1], fill: line + "24" });
      series.push({ stroke: smoothed ? line + "59" : line, width: smoothed ? 1 : 1.75, points: { show: metric.points === true, size: 5, fill: line } });
      series.push({ show: smoothed, stroke: line, width: 2, points: { show: false } });
    }
    const axis = { stroke: ink, font, grid: { stroke: rule, width: 1 }, ticks: { show: false } };
    const times = view.x === "wall" && (data[0][0] ?? 0) > 1e9;
    this.plot = new uPlot({
      ...this.size(),
      padding: [8, 12, 0, 0],
      legend: { show: false },
      focus: { prox: -1 },
      cursor: {
        sync: { key: this.board.key, setSeries: false },
        points: { show: (u, i) => (i - 1) % 4 === 2 && !this.isSmoothed(this.spec.metrics[(i - 1) >> 2]) || (i - 1) % 4 === 3, size: 7 },
        drag: { x: true, y: false, setScale: false },
        bind: { dblclick: () => () => { this.board.zoom(); return null; } },
      },
      scales: {
        x: { time: false, auto: false },
        y: { distr: view.log && this.spec.log ? 3 : 1, range: (_, low, high) => this.range(low, high) },
      },
      axes: [
        { ...axis, grid: { show: false }, size: 28, space: 64, values: times ? (_, s) => s.map(clock) : axisLabels },
        { ...axis, size: 52, space: 32, values: axisLabels },
      ],
      series, bands,
      hooks: {
        setSelect: [u => {
          if (u.select.width < 4) return;
          const from = u.posToVal(u.select.left, "x"), to = u.posToVal(u.select.left + u.select.width, "x");
          u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          this.board.zoom(from, to);
        }],
        setCursor: [u => this.point(u.cursor.idx)],
        draw: [u => this.marks(u)],
      },
    }, data, this.canvas);
  }

  range(low, high) {
    if (low == null || high == null) return [0, 1];
    if (this.board.view.log && this.spec.log) return [low / 1.05, high * 1.05];
    const pad = high > low ? (high - low) * 0.08 : Math.abs(high) * 0.1 || 1;
    return [low >= 0 && low - pad < 0 ? 0 : low - pad, high + pad];
  }

  // Checkpoints: small triangles on the axis of the main chart.
  marks(u) {
    if (!this.spec.wide || this.board.view.x !== "step") return;
    const { ctx, bbox } = u, size = 4 * devicePixelRatio;
    ctx.save();
    ctx.fillStyle = getComputedStyle(this.host).getPropertyValue("--chart-ink");
    for (const step of this.board.checkpoints) {
      const x = u.valToPos(step, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      const y = bbox.top + bbox.height;
      ctx.beginPath();
      ctx.moveTo(x, y - 1.6 * size);
      ctx.lineTo(x + size, y);
      ctx.lineTo(x - size, y);
      ctx.fill();
    }
    ctx.restore();
  }

  // The legend's values: at the crosshair, or the newest.
  point(index) {
    const data = this.plot?.data;
    if (!data) return;
    const here = index ?? data[0].length - 1;
    this.spec.metrics.forEach((metric, m) => {
      const raw = data[1 + 4 * m + 2], smooth = data[1 + 4 * m + 3];
      let i = here;
      while (i > 0 && raw[i] == null) i--;
      const value = raw[i];
      this.values[m].textContent = short(value) + (this.isSmoothed(metric) && value != null ? ` (${short(smooth[i])})` : "");
    });
    const x = data[0][here];
    this.where.textContent = index == null || x === undefined ? "" : this.board.view.x === "wall" ? clock(x) : `${this.board.view.x} ${short(x)}`;
  }

  describe() {
    const count = this.plot.data[0].length;
    this.host.classList.toggle("without-points", count === 0);
    this.point(this.plot.cursor.idx);
    const last = this.spec.metrics.map((m, i) => `${m.label} ${short(this.series[i].mean.at(-1))}`).join(", ");
    this.canvas.setAttribute("aria-label", count === 0 ? `${this.spec.title}: no points yet` : `${this.spec.title} by ${this.board.view.x}; newest: ${last}`);
    this.host.chartData = {
      x: this.board.view.x, from: this.board.view.from, to: this.board.view.to,
      series: Object.fromEntries(this.spec.metrics.map((m, i) => [m.name, this.series[i]])),
    };
  }

  dispose() {
    this.resizer.disconnect();
    this.plot?.destroy();
  }
}

class Board {
  constructor(root, options) {
    this.root = root;
    this.run = options.run;
    this.key = options.run + Math.random();
    this.turn = 0;
    this.checkpoints = options.checkpoints;
    this.view = { x: options.x, log: options.log, smoothing: options.smoothing };
    this.reset = root.querySelector("[data-reset]");
    this.reset?.addEventListener("click", () => this.zoom());
    this.charts = options.charts.map((spec, i) => new Chart(this, root.querySelectorAll("[data-chart]")[i], spec));
    this.heard = [];
    this.stop = follow(this.run, events => this.hear(events));
    this.theme = new MutationObserver(() => this.charts.forEach(c => c.plot && c.show()));
    this.theme.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    this.seen = () => { if (!document.hidden) this.refresh(); };
    document.addEventListener("visibilitychange", this.seen);
    this.refresh();
  }

  /** New events go straight into the charts. What cannot be added at the end (a restart, a gap, a part that is zoomed) is read again. */
  hear(events) {
    this.heard = this.heard.concat(events).slice(-mostHeard);
    if (document.hidden || this.sequence === undefined || this.view.from !== undefined || !this.add(events)) {
      if (events.length === 0 || events.some(e => e.type !== "progress")) this.refresh();
    } else if (events.some(e => e.type === "metrics")) {
      this.charts.forEach(c => c.show());
    }
  }

  /** Adds the events that are not in the charts yet; false where something is missing or superseded. */
  add(events) {
    if (events.length === 0) return false;
    for (const event of events) {
      if (event.sequence <= this.sequence) continue;
      if (event.sequence !== this.sequence + 1 || event.type === "started") return false;
      this.sequence = event.sequence;
      if (event.type === "metrics") this.charts.forEach(c => c.add(event));
    }
    return true;
  }

  async read() {
    const metrics = this.charts.flatMap(c => c.spec.metrics.map(m => m.name));
    const width = Math.max(...this.charts.map(c => c.canvas.clientWidth));
    return readSeries(this.run, metrics, this.view, Math.max(100, Math.min(1200, Math.round(width))));
  }

  take({ all, sequence }) {
    this.sequence = sequence;
    for (const chart of this.charts) chart.series = all.splice(0, chart.spec.metrics.length);
    // What came while it was read. Where that does not join on, the next event leads to another reading.
    if (this.view.from === undefined) this.add(this.heard);
    this.heard = [];
    this.charts.forEach(c => c.show());
  }

  /** Reads all charts again: at once, or after the reading under way and the pause behind it, which lasts nine times as long as the
   * reading itself, so that charts never take more than a tenth of the time. */
  async refresh() {
    if (this.disposed || document.hidden) return;
    if (this.reading) { this.again = true; return; }
    clearTimeout(this.timer);
    this.reading = true;
    this.again = false;
    const start = performance.now(), turn = ++this.turn;
    let read = null;
    try { read = await this.read(); } catch { /* told below */ }
    // A later question, after a zoom for example, has overtaken this answer.
    if (this.disposed || turn !== this.turn) return;
    this.root.classList.toggle("unreachable", read === null);
    if (read) this.take(read);
    this.timer = setTimeout(() => this.rested(), Math.max(shortest, 9 * (performance.now() - start)));
  }

  rested() {
    this.reading = false;
    if (this.again) this.refresh();
    else this.timer = setTimeout(() => this.refresh(), isLive() ? pollLive : pollAlone);
  }

  /** For what a person asked: does not wait out the pause. */
  hurry() {
    clearTimeout(this.timer);
    this.reading = false;
    this.refresh();
  }

  zoom(from, to) {
    this.view.from = from;
    this.view.to = to;
    if (this.reset) this.reset.hidden = from === undefined;
    for (const chart of this.charts) if (chart.plot) chart.rescale();
    this.hurry();
  }

  update(options) {
    const x = this.view.x;
    this.checkpoints = options.checkpoints;
    Object.assign(this.view, { x: options.x, log: options.log, smoothing: options.smoothing });
    if (x !== options.x) { this.zoom(); return; }
    this.hurry();
  }

  /** New checkpoints: only the marks change. */
  mark(checkpoints) {
    this.checkpoints = checkpoints;
    for (const chart of this.charts) chart.plot?.redraw(false);
  }

  dispose() {
    this.disposed = true;
    clearTimeout(this.timer);
    this.stop();
    this.theme.disconnect();
    document.removeEventListener("visibilitychange", this.seen);
    this.charts.forEach(c => c.dispose());
  }
}

/** Draws the charts in root's elements [data-chart], in their order. */
export const create = (root, options) => new Board(root, options);
