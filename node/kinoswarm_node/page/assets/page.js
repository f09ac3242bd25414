// The local page: asks the node every two seconds and shows what it says. Texts are set as text, never as markup.
"use strict";

const RANGES = {
  share_percent: { name: "Share of the time", min: 5, max: 100, step: 5, unit: "%" },
  idle_minutes: { name: "Idle minutes before it starts", min: 0, max: 60, step: 1, unit: "min" },
  max_temperature_c: { name: "Temperature ceiling (0 is off)", min: 0, max: 100, step: 1, unit: "°C" },
  max_other_cpu_percent: { name: "Pause when other programs use more of the processor than (0 is off)", min: 0, max: 100, step: 5, unit: "%" },
};
const SWITCHES = {
  on_battery: "Train on battery",
  on_metered: "Train on a metered connection",
  share_gpu: "Train while others use the graphics card",
};
const PARTS = {
  not_more: "Why not more", credit: "Credit",
  safe: "If the power went now", founder: "From the founder", next_step: "Next step",
};
const GOOD = ["training", "fetching", "submitting", "accepted"], BAD = ["stopped", "rejected", "failed"];
const WAIT = ["paused", "quarantined", "dropped"];
const byId = (id) => document.getElementById(id);

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Kinoswarm": "1" },
    body: JSON.stringify(body),
  };
  const answer = await fetch(path, options);
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.problem || answer.statusText);
  return found;
}

let acted = 0;

// What was asked last has the word: an earlier answer that comes later must not wipe its problem away.
async function act(path, body) {
  const turn = ++acted;
  const say = (text) => { if (turn === acted) byId("problem").textContent = text; };
  try {
    const found = await ask(path, body);
    say("");
    return found;
  } catch (error) {
    say(error.message);
    return undefined;
  }
}

function element(tag, text, parent) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function colour(word) {
  return GOOD.includes(word) ? "good" : WAIT.includes(word) ? "wait" : BAD.includes(word) ? "bad" : "";
}

function ago(ms) {
  const minutes = Math.max(0, Math.round((Date.now() - ms) / 60000));
  if (minutes < 120) return `${minutes} min ago`;
  return minutes < 48 * 60 ? `${Math.round(minutes / 60)} h ago` : new Date(ms).toLocaleDateString();
}

function showFigures(status) {
  const segment = status.segment, sees = status.governor ? status.governor.sees : {};
  const figures = {
    "segments accepted": status.accepted, "not accepted": status.rejected,
    "awaiting a verdict": status.awaiting_verdict, "kept to be sent": status.unsent || undefined,
    "steps a second": segment && segment.steps_per_s ? segment.steps_per_s.toPrecision(2) : undefined,
    "temperature": sees.temperature, "power": sees["power draw"],
  };
  const list = byId("figures");
  list.replaceChildren();
  for (const [name, value] of Object.entries(figures)) {
    if (value === undefined) continue;
    const pair = element("div", undefined, list);
    element("dt", name, pair);
    element("dd", String(value), pair);
  }
}

function showNow(found) {
  const { status, why, paused } = found;
  const phase = byId("phase");
  Object.assign(phase, { hidden: false, textContent: status.state.replace("_", " "), className: `pill ${colour(status.state)}` });
  showFigures(status);
  byId("name").textContent = status.pseudonym;
  byId("swarm").textContent = status.swarm_name;
  byId("state").textContent = why.now.slice(0, 2).join(" ");
  const segment = status.segment;
  byId("progress").hidden = !segment;
  byId("segment").textContent = why.now.slice(2).join(" ");
  if (segment) byId("progress").value = segment.total ? segment.step / segment.total : 0;
  byId("resume").disabled = !paused;
  const list = byId("why");
  list.replaceChildren();
  for (const [part, heading] of Object.entries(PARTS)) {
    const lines = [].concat(why[part]).filter(Boolean);
    if (!lines.length) continue;
    element("dt", heading, list);
    for (const line of lines) element("dd", line, list);
  }
}

function makeLimits(limits, words) {
  const form = byId("limits");
  if (form.childElementCount) return;
  for (const [name, range] of Object.entries(RANGES)) {
    const label = element("label", `${range.name}: `, form);
    const shown = element("output", `${limits[name]} ${range.unit}`, label);
    const input = element("input", undefined, label);
    Object.assign(input, { type: "range", min: range.min, max: range.max, step: range.step, name });
    input.value = limits[name];
    input.addEventListener("input", () => { shown.textContent = `${input.value} ${range.unit}`; });
    input.addEventListener("change", () => act("/api/limits", { [name]: Number(input.value) }));
    element("small", words[name], label);
  }
  for (const [name, text] of Object.entries(SWITCHES)) {
    const label = element("label", undefined, form);
    const input = element("input", undefined, label);
    Object.assign(input, { type: "checkbox", checked: limits[name], name });
    label.append(` ${text}`);
    input.addEventListener("change", () => act("/api/limits", { [name]: input.checked }));
  }
  const hours = element("label", "Hours in which to train", form);
  const input = element("input", undefined, hours);
  Object.assign(input, { type: "text", name: "hours", value: limits.hours, placeholder: "22:00-07:00", maxLength: 200 });
  input.addEventListener("change", () => act("/api/limits", { hours: input.value }));
  element("small", words.hours, hours);
}

function showLoss(points) {
  const line = document.querySelector("#loss polyline");
  byId("loss-high").textContent = byId("loss-low").textContent = "";
  if (points.length < 2) { line.setAttribute("points", ""); byId("loss-words").textContent = "No points yet."; return; }
  const steps = points.map((point) => point[0]), losses = points.map((point) => point[1]);
  const low = Math.min(...losses), high = Math.max(...losses), last = steps[steps.length - 1];
  const x = (step) => 5 + 530 * (step - steps[0]) / Math.max(1, last - steps[0]);
  const y = (loss) => 155 - 150 * (loss - low) / Math.max(1e-9, high - low);
  line.setAttribute("points", points.map(([step, loss]) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`).join(" "));
  byId("loss-high").textContent = high.toFixed(4);
  byId("loss-low").textContent = low.toFixed(4);
  byId("loss-words").textContent = `Step ${last}: ${losses[losses.length - 1].toFixed(4)} (from ${losses[0].toFixed(4)}).`;
}

function showSamples(found) {
  const list = byId("samples");
  const key = found.clips.map((clip) => clip.file).join();
  byId("samples-words").textContent = found.problem ? `No more clips: ${found.problem}`
    : found.clips.length ? "" : "The first clip comes with the second segment.";
  if (list.dataset.shown === key) return;
  list.dataset.shown = key;
  list.replaceChildren();
  for (const clip of found.clips) {
    const item = element("li", undefined, list);
    const video = element("video", undefined, item);
    Object.assign(video, { src: `/samples/${clip.file}`, muted: true, loop: true, controls: true, preload: "metadata" });
    video.setAttribute("aria-label", `Clip of ${clip.label}, version ${clip.version}`);
    element("p", `${clip.label}, version ${clip.version}: ${clip.caption}`, item);
  }
}

function showHistory(lines) {
  const body = byId("history");
  body.replaceChildren();
  for (const line of lines) {
    const row = element("tr", undefined, body);
    element("td", ago(line.at_ms), row).title = new Date(line.at_ms).toLocaleString();
    element("td", line.state, row).className = colour(line.state);
    element("td", line.sentence, row);
  }
}

function showLog(lines) {
  const list = byId("log");
  list.replaceChildren();
  for (const line of lines) {
    const [, at, said] = line.match(/^(\S+T\S+) (.*)$/s) || [];
    const item = element("li", undefined, list);
    if (at) Object.assign(element("time", new Date(at).toLocaleTimeString(), item), { dateTime: at, title: at });
    item.append(at ? ` ${said}` : line);
  }
}

async function look() {
  try {
    const found = await ask("/api/now");
    showNow(found);
    makeLimits(found.limits, found.words);
    showLoss(await ask("/api/loss"));
  } catch (error) {
    byId("state").textContent = `The node does not answer: ${error.message}`;
  }
}

async function lookFarther() {
  try {
    showHistory(await ask("/api/history"));
    showSamples(await ask("/api/samples"));
    showLog(await ask("/api/log"));
  } catch (error) {
    byId("state").textContent = `The node does not answer: ${error.message}`;
  }
}

byId("hour").addEventListener("click", () => act("/api/pause", { minutes: 60 }).then(look));
byId("pause").addEventListener("click", () => act("/api/pause", {}).then(look));
byId("resume").addEventListener("click", () => act("/api/resume", {}).then(look));
byId("identity").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = await act("/api/identity", { passphrase: byId("passphrase").value });
  if (text === undefined) return;
  byId("passphrase").value = "";
  byId("backup").hidden = false;
  byId("backup").value = text;
});
look();
lookFarther();
setInterval(look, 2000);
setInterval(lookFarther, 10000);
