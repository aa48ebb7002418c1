"use strict";
const root = document.documentElement;

// Charts take their colours from the page's custom properties, now and whenever the theme changes.
const themed = () => {
  const style = getComputedStyle(root);
  const value = (name) => style.getPropertyValue(name).trim();
  const colours = {
    "font.color": value("--ink"), "font.family": value("--sans"), "font.size": 13,
    "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
    "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": value("--soft"), "modebar.activecolor": value("--ink"),
    "hoverlabel.bgcolor": value("--raised"), "hoverlabel.bordercolor": value("--line"),
    "hoverlabel.font.color": value("--ink"), "hoverlabel.namelength": -1, "legend.bgcolor": "rgba(0,0,0,0)",
  };
  for (const axis of ["xaxis", "yaxis"]) {
    colours[axis + ".gridcolor"] = value("--grid");
    colours[axis + ".linecolor"] = value("--line");
  }
  return colours;
};
const set = (layout, path, value) => {
  const keys = path.split(".");
  const last = keys.pop();
  keys.reduce((at, key) => (at[key] ??= {}), layout)[last] = value;
};

const charts = new Map();
const source = (div) => document.querySelector(`script[data-chart="${div.id}"]`);
const specification = (div) => JSON.parse(source(div).textContent);

// The legend stands under the drawing and must not eat it up.
const height = (div, data) => {
  const names = data.filter((trace) => trace.name && trace.showlegend !== false).map((trace) => trace.name.length);
  const columns = Math.max(1, Math.floor((div.clientWidth - 140) / (50 + 7 * Math.max(0, ...names))));
  return 410 + 19 * Math.ceil(names.length / columns);
};

// Draws a chart, or draws it anew with new data; zoom and legend stay as the reader left them.
const draw = async (div) => {
  onScreen.unobserve(div);
  try {
    const { data, layout, config } = specification(div);
    for (const [path, value] of Object.entries(themed())) set(layout, path, value);
    if (innerWidth < 640) layout.margin.r = 72;
    div.style.height = `${height(div, data)}px`;
    if (root.classList.contains("printing")) Object.assign(layout, paper(div));
    await (charts.has(div.id) ? Plotly.react(div, data, layout, config) : Plotly.newPlot(div, data, layout, config));
    if (!charts.has(div.id)) {
      enable(div);
      enableLegend(div);
      div.on("plotly_afterplot", () => enableLegend(div));
    }
    charts.set(div.id, div);
    root.dataset.charts = charts.size;
  } catch (error) {
    div.classList.add("failed");
    div.textContent = "This chart could not be drawn: " + error.message;
    root.dataset.error = error.message;
  }
};

// A chart takes a browser as long to draw as a small page to open, so each waits until it comes near the screen.
const waiting = new Set();
let drawing = Promise.resolve();
// One after another, with a pause for the reader's clicks between them.
const drawNext = (divs) => {
  for (const div of divs) {
    drawing = drawing.then(async () => {
      if (!waiting.delete(div)) return;
      await draw(div);
      await new Promise((resume) => setTimeout(resume));
    });
  }
  drawing = drawing.then(tell);
};
// What the page says of itself: whether every chart is drawn, or every one that is near the screen.
const tell = () => { root.dataset.drawn = waiting.size === 0 ? "all" : "near"; };
const onScreen = new IntersectionObserver(
  (changes) => drawNext(changes.filter((change) => change.isIntersecting).map((change) => change.target)),
  { rootMargin: "50% 0px" },
);
// Room is kept for what is not drawn yet, so that nothing moves when it is.
const expect = (divs) => {
  for (const div of divs) {
    waiting.add(div);
    div.style.height = `${height(div, specification(div).data)}px`;
    onScreen.observe(div);
  }
  if (divs.length === 0) tell();
};
// Draws what still waits, at once.
const drawRest = () => {
  const rest = [...waiting];
  waiting.clear();
  return Promise.all(rest.map(draw)).then(tell);
};

// The controls above a chart: a logarithmic axis, and how much curves are smoothed.
const enable = (div) => {
  const tools = document.querySelector(`.tools[data-for="${div.id}"]`);
  if (!tools) return;
  const { data, layout } = specification(div);
  const log = tools.querySelector(".log");
  log.checked = layout.yaxis.type === "log";
  log.disabled = !log.checked && data.some((trace) => (trace.y ?? []).some((y) => typeof y === "number" && y <= 0));
  log.addEventListener("change", () => scale(div, log.checked));
  const smoothing = tools.querySelector(".smoothing");
  smoothing?.addEventListener("input", () => smooth(div, Number(smoothing.value), tools.querySelector(".half")));
  tools.hidden = false;
};
const retool = (div) => {
  const tools = document.querySelector(`.tools[data-for="${div.id}"]`);
  if (!tools) return;
  scale(div, tools.querySelector(".log").checked);
  const smoothing = tools.querySelector(".smoothing");
  if (smoothing) smooth(div, Number(smoothing.value), tools.querySelector(".half"));
};
const scale = (div, log) => {
  const { yaxis } = specification(div).layout;
  const asDrawn = log === (yaxis.type === "log");
  const title = (yaxis.title?.text ?? "").replace(/, log scale$/, "");
  Plotly.relayout(div, {
    "yaxis.type": log ? "log" : "linear", "yaxis.autorange": true,
    "yaxis.tickmode": asDrawn && yaxis.tickvals ? "array" : "auto",
    "yaxis.title.text": log ? title + ", log scale" : title,
  });
};

// The share of a run over which the weights of the smoothing halve, by position of the slider.
const HALVES = [0, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1];
const smooth = (div, position, output) => {
  const half = HALVES[position];
  output.textContent = half === 0 ? "none" : `${half * 100} %`;
  const { data } = specification(div);
  const lines = [];
  data.forEach((trace, at) => { if (trace.meta === "line") lines.push(at); });
  const raw = (line) => data.find((trace) => trace.meta === "raw" && trace.legendgroup === line.legendgroup);
  // At its usual strength the line was smoothed from every logged step, not only from those that are in the page.
  const usual = half === 0.01;
  const xs = lines.map((at) => (usual ? data[at] : raw(data[at])).x);
  const ys = lines.map((at) => (usual ? data[at].y : smoothed(raw(data[at]).y, half)));
  Plotly.restyle(div, { x: xs, y: ys }, lines);
};
const smoothed = (values, half) => {
  if (half === 0) return values;
  const beta = 0.5 ** (1 / Math.max(half * values.length, 1e-6));
  const oneSide = (list) => {
    let sum = 0, weight = 0;
    return list.map((value) => [sum = sum * beta + value, weight = weight * beta + 1]);
  };
  const before = oneSide(values);
  const after = oneSide([...values].reverse()).reverse();
  return values.map((value, at) => (before[at][0] + after[at][0] - value) / (before[at][1] + after[at][1] - 1));
};

const repaint = () => { for (const div of charts.values()) Plotly.relayout(div, themed()); };
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

// Paper is white, narrow and cannot be clicked.
const paper = (div) => ({ width: 660, height: Math.max(380, parseInt(div.style.height) - 40), autosize: false });
let closed = [];
addEventListener("beforeprint", () => {
  root.classList.add("printing");
  drawRest();
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const details of closed) details.open = true;
  for (const div of charts.values()) {
    Plotly.relayout(div, { ...themed(), ...paper(div) });
  }
});
addEventListener("afterprint", () => {
  root.classList.remove("printing");
  for (const details of closed) details.open = false;
  for (const div of charts.values()) Plotly.relayout(div, { ...themed(), width: null, height: null, autosize: true });
});

root.dataset.charts = 0;
expect(document.querySelectorAll(".chart"));
