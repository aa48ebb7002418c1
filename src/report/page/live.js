// The live page: asks its own server every two seconds whether something changed, and takes over what did.
const live = document.getElementById("live");
let version = "";

const replaced = (fresh, id, before) => {
  const [old, now] = [document.getElementById(id), fresh.getElementById(id)];
  if (!now || old?.innerHTML === now.innerHTML) return false;
  const open = [...(old?.querySelectorAll("details") ?? [])].map((details) => details.open);
  const part = document.adoptNode(now);
  [...part.querySelectorAll("details")].forEach((details, at) => { details.open = open[at] ?? details.open; });
  if (old) old.replaceWith(part);
  else document.querySelector("main").insertBefore(part, document.getElementById(before));
  return true;
};

const takeResults = (fresh) => {
  const filter = document.getElementById("filter");
  const [words, writing] = [filter?.value ?? "", document.activeElement === filter];
  const sorted = document.querySelector("#table th[aria-sort]");
  const top = document.querySelector("#results .scroll")?.scrollTop ?? 0;
  if (!replaced(fresh, "results", "made")) return;
  results = enableTable();
  if (!results) return;
  const again = document.getElementById("filter");
  again.value = words;
  if (sorted) results.sort(sorted.cellIndex, sorted.getAttribute("aria-sort") === "descending");
  if (words) results.apply();
  if (writing) again.focus();
  document.querySelector("#results .scroll").scrollTop = top;
};

const takeCharts = async (fresh) => {
  const section = fresh.getElementById("charts");
  if (!section) return;
  if (!document.getElementById("charts")) {
    document.querySelector("main").insertBefore(document.adoptNode(section), document.getElementById("made"));
    expect(document.querySelectorAll("#charts .chart"));
    return;
  }
  const home = document.getElementById("charts");
  for (const figure of [...section.querySelectorAll("figure")]) {
    const id = figure.querySelector(".chart").id;
    const div = document.getElementById(id);
    if (!div) {
      home.append(document.adoptNode(figure));
      expect([document.getElementById(id)]);
      continue;
    }
    const [old, now] = [source(div), figure.querySelector("script[data-chart]")];
    if (old.textContent === now.textContent) continue;
    old.textContent = now.textContent;
    if (waiting.has(div)) continue;
    await draw(div);
    retool(div);
  }
};

const refresh = async () => {
  const fresh = new DOMParser().parseFromString(await (await asked("update")).text(), "text/html");
  for (const heading of ["h1", ".made"]) {
    document.querySelector(heading).textContent = fresh.querySelector(heading).textContent;
  }
  replaced(fresh, "verdict", "results");
  takeResults(fresh);
  replaced(fresh, "comparison", "made");
  await takeCharts(fresh);
  replaced(fresh, "made", null);
};
const asked = async (what) => {
  const answer = await fetch(what, { cache: "no-store" });
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
};
const tick = async () => {
  try {
    const state = await (await asked("state")).json();
    if (state.version !== version) await refresh();
    version = state.version;
    live.textContent = state.words;
    live.dataset.status = state.status;
    root.dataset.version = version;
  } catch (error) {
    live.textContent = error instanceof TypeError ? "The program that serves this page has ended; what you see stays." : error.message;
    live.dataset.status = "lost";
  }
  setTimeout(tick, 2000);
};
tick();
