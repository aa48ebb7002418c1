// Legends by keyboard: Tab reaches a legend, arrows move in it, Enter or Space shows or hides a curve.
const KEYS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
const entries = (div) => [...div.querySelectorAll(".legend .traces")].filter((entry) => entry.querySelector(".legendtoggle"));

// Called whenever the chart has been drawn, since its legend may be new or say something else then.
const enableLegend = (div) => {
  const all = entries(div);
  const current = all.find((entry) => entry.getAttribute("tabindex") === "0") ?? all[0];
  for (const entry of all) {
    entry.setAttribute("tabindex", entry === current ? 0 : -1);
    entry.setAttribute("role", "switch");
    entry.setAttribute("aria-label", entry.textContent.trim());
    entry.setAttribute("aria-checked", Number(entry.style.opacity || 1) === 1);
    entry.onkeydown = (event) => legendKey(event, div, entry);
  }
};
const legendKey = (event, div, entry) => {
  if (event.key === "Enter" || event.key === " ") {
    for (const type of ["mousedown", "mouseup"]) {
      entry.querySelector(".legendtoggle").dispatchEvent(new MouseEvent(type, { bubbles: true }));
    }
  } else if (event.key in KEYS) {
    const all = entries(div);
    const next = all[(all.indexOf(entry) + KEYS[event.key] + all.length) % all.length];
    entry.setAttribute("tabindex", -1);
    next.setAttribute("tabindex", 0);
    next.focus();
  } else {
    return;
  }
  event.preventDefault();
};

