// Draws series with uPlot where the page gives them; readers without scripts keep the drawing inside the figure.
const palette = getComputedStyle(document.documentElement);
const colour = (name) => palette.getPropertyValue(name).trim();
const plots = new Map();
const reading = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, notation: "compact" });

function style(series) {
  const stroke = colour(`--hue-${series.hue}`);
  const bars = series.bars ? { paths: uPlot.paths.bars({ size: [0.8, 40] }), points: { show: false } } : {};
  return {
    label: series.label, stroke, width: 2, fill: `${stroke}22`,
    value: (_, value) => (value === null ? "–" : reading.format(value)), ...bars,
  };
}

function axis(extra) {
  return { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui", ...extra };
}

function options(data, width) {
  const time = data.kind === "time";
  return {
    width, height: 200, cursor: { y: false }, legend: { live: true },
    scales: { x: { time }, y: { range: (_, low, high) => (data.kind === "version" ? [low - (high - low) * 0.1, high + (high - low) * 0.1 || 1] : [0, Math.max(high, 1)]) } },
    axes: [axis(time ? {} : { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] }), axis({ size: 56, values: (_, ticks) => ticks.map((tick) => reading.format(tick)) })],
    series: [{ label: time ? "time" : data.kind }, ...data.series.map(style)],
  };
}

function columns(data) {
  return [data.x, ...data.series.map((series) => series.values)];
}

function draw(figure) {
  const data = JSON.parse(figure.dataset.chart);
  if (data.x.length < 2) return;
  const canvas = figure.querySelector(".canvas");
  canvas.replaceChildren();
  plots.set(figure.id, new uPlot(options(data, canvas.clientWidth), columns(data), canvas));
}

function drawAll() {
  for (const figure of document.querySelectorAll("[data-chart]")) draw(figure);
}

document.addEventListener("kinoswarm:fresh", (event) => {
  for (const fresh of event.detail.querySelectorAll("[data-chart]")) {
    const figure = document.getElementById(fresh.id);
    if (!figure || figure.dataset.chart === fresh.dataset.chart) continue;
    figure.dataset.chart = fresh.dataset.chart;
    const plot = plots.get(figure.id);
    if (plot) plot.setData(columns(JSON.parse(figure.dataset.chart))); else draw(figure);
  }
});
addEventListener("resize", () => {
  for (const [id, plot] of plots) plot.setSize({ width: document.getElementById(id).querySelector(".canvas").clientWidth, height: 200 });
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
drawAll();
