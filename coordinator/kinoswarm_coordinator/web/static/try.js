// Follows one clip while it is made: place in the queue, denoising steps, and the expert of each. Reloads at the end.
const place = document.getElementById("wish");
const state = document.getElementById("state");
const bar = document.getElementById("progress");
const picks = document.getElementById("picks");

function cell(expert, step) {
  const item = document.createElement("li");
  item.className = `hue-${expert % Number(place.dataset.hues)}`;
  item.title = `step ${step + 1}: expert ${expert}`;
  item.textContent = expert;
  return item;
}

function show(wish) {
  if (wish.phase === "done" || wish.phase === "failed") { location.reload(); return; }
  const words = wish.phase === "waiting" ? `${wish.position} before you` : `step ${wish.step} of ${wish.total || "…"}`;
  if (state.textContent !== words) state.textContent = words;
  bar.max = wish.total || 1;
  bar.value = wish.step;
  while (picks.children.length > wish.expert_by_step.length) picks.lastChild.remove();
  wish.expert_by_step.slice(picks.children.length).forEach((expert) => picks.append(cell(expert, picks.children.length)));
}

if (bar) {
  const stream = new EventSource(`/api/v1/try/${place.dataset.wish}/events`);
  stream.addEventListener("wish", (event) => show(JSON.parse(event.data)));
  stream.addEventListener("error", () => {
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  });
}
