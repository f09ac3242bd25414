// Keeps the page current: after every change the server names, the sections are fetched again and replaced in place.
const beat = document.getElementById("beat");
const main = document.querySelector("[data-live]");
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
let busy = false;
let again = false;

function say(state, text) {
  beat.dataset.state = state;
  beat.textContent = text;
}

function addCopyButtons(root) {
  for (const block of root.querySelectorAll(".command")) {
    if (block.querySelector("button")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("code").textContent);
      button.textContent = "copied";
      setTimeout(() => { button.textContent = "copy"; }, 2000);
    });
    block.append(button);
  }
}

function holdStill(root) {
  if (still) for (const video of root.querySelectorAll("video")) { video.autoplay = false; video.controls = true; video.pause(); }
}

// A section that looks the same is left alone, so that playing clips and opened details are not disturbed.
function replaceSections(fresh) {
  const now = [...main.children];
  [...fresh.children].forEach((section, index) => {
    const old = now[index];
    if (!old) { main.append(section); return; }
    if ("keep" in old.dataset || old.dataset.html === section.innerHTML) return;
    const open = old.querySelector("details")?.open ?? false;
    section.dataset.html = section.innerHTML;
    old.replaceWith(section);
    const details = section.querySelector("details");
    if (details) details.open = open;
    holdStill(section);
  });
}

async function refresh() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const answer = await fetch("/", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    const text = await answer.text();
    const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("[data-live]");
    replaceSections(fresh);
    say("live", "live");
  } catch {
    say("lost", "connection lost, trying again");
  } finally {
    busy = false;
    if (again) { again = false; refresh(); }
  }
}

for (const section of main.children) section.dataset.html = section.innerHTML;
addCopyButtons(document);
holdStill(document);
const stream = new EventSource("/api/v1/events");
stream.addEventListener("changed", refresh);
stream.addEventListener("error", () => say("lost", "connection lost, trying again"));
