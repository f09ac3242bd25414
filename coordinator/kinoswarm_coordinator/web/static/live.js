// Keeps the page current. The server names the tag of what it shows; when that differs from ours, the page is
// fetched again and the document is changed only where it differs, so clips play on and focus stays where it is.
const POLL_MS = 15000;
const beat = document.getElementById("beat");
const main = document.querySelector("[data-live]");
const still = matchMedia("(prefers-reduced-motion: reduce)");
// A copy's times are told by the reader's own clock: its age is what matters.
let behindServer = "still" in document.documentElement.dataset ? 0 : Number(main.dataset.now) - Date.now();
let busy = false;
let wanted = "";
let paused = still.matches;

function say(state, text) {
  if (beat.dataset.state === state) return;
  beat.dataset.state = state;
  beat.textContent = text;
}

function ago(thenMs) {
  if (!thenMs) return "not lately";
  const seconds = Math.floor(Math.max(0, Date.now() + behindServer - thenMs) / 1000);
  if (seconds < 5) return "just now";
  for (const [limit, divisor, unit] of [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"]]) {
    if (seconds < limit) return `${Math.floor(seconds / divisor)} ${unit} ago`;
  }
  return `${Math.floor(seconds / 86400)} d ago`;
}

function tellTimes() {
  for (const time of document.querySelectorAll("time[data-ms]")) {
    const words = ago(Number(time.dataset.ms));
    if (time.textContent !== words) time.textContent = words;
  }
}

function sameKind(old, fresh) {
  return old.nodeType === fresh.nodeType && old.nodeName === fresh.nodeName && old.id === fresh.id;
}

function syncAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

function morph(old, fresh) {
  if (!sameKind(old, fresh)) { old.replaceWith(fresh); return; }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if ("keep" in old.dataset) return;
  if (old.nodeName === "VIDEO" && old.getAttribute("src") === fresh.getAttribute("src")) return;
  syncAttributes(old, fresh);
  const [mine, theirs] = [[...old.childNodes], [...fresh.childNodes]];
  theirs.forEach((child, index) => (mine[index] ? morph(mine[index], child) : old.append(child)));
  for (const gone of mine.slice(theirs.length)) gone.remove();
}

// Native controls are for readers without this script or with reduced motion; others get one button for all clips.
function conductClips() {
  for (const video of document.querySelectorAll("video")) {
    video.controls = still.matches;
    if (paused) { video.autoplay = false; video.pause(); } else if (!video.autoplay) { video.autoplay = true; video.play().catch(() => {}); }
  }
  const place = document.getElementById("pause");
  if (!place) return;
  if (!place.firstChild) {
    const button = document.createElement("button");
    button.type = "button";
    button.addEventListener("click", () => { paused = !paused; conductClips(); });
    place.append(button);
  }
  place.firstChild.textContent = paused ? "Play all clips" : "Pause all clips";
}

async function copy(code, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    // Plain http has no clipboard for scripts: select the text, so that the reader's own copy takes it.
    getSelection().selectAllChildren(code);
    done = false;
  }
  button.textContent = done ? "Copied" : "Selected";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

function addCopyButtons() {
  for (const command of document.querySelectorAll(".command")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", () => copy(command.querySelector("code"), button));
    command.append(button);
  }
}

async function refresh(tag) {
  wanted = tag;
  if (busy || wanted === main.dataset.tag) { if (!busy) say("live", "live"); return; }
  busy = true;
  try {
    const answer = await fetch(location.pathname + location.search, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (page.documentElement.dataset.assets !== document.documentElement.dataset.assets) { location.reload(); return; }
    const fresh = page.querySelector("[data-live]");
    behindServer = Number(fresh.dataset.now) - Date.now();
    morph(main, fresh);
    document.dispatchEvent(new CustomEvent("kinoswarm:fresh", { detail: fresh }));
    conductClips();
    tellTimes();
    say("live", "live");
  } catch {
    say("lost", "connection lost, trying again");
  } finally {
    busy = false;
  }
  if (beat.dataset.state === "live" && wanted && wanted !== tag) refresh(wanted);
}

function listen() {
  const stream = new EventSource("/api/v1/events");
  stream.addEventListener("changed", (event) => refresh(event.data));
  stream.addEventListener("error", () => {
    say("lost", "connection lost, trying again");
    // The browser reconnects by itself, except when the server refused: then look now and then.
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => { refresh("").then(listen); }, POLL_MS);
  });
}

addCopyButtons();
conductClips();
tellTimes();
setInterval(tellTimes, 10000);
still.addEventListener("change", () => { paused = still.matches; conductClips(); });
if (!("still" in document.documentElement.dataset)) listen();
