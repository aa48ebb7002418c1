"use strict";
(() => {
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

  const charts = [];
  const draw = async (source) => {
    const div = document.getElementById(source.dataset.chart);
    try {
      const { data, layout, config } = JSON.parse(source.textContent);
      for (const [path, value] of Object.entries(themed())) set(layout, path, value);
      if (innerWidth < 640) layout.margin.r = 72;
      await Plotly.newPlot(div, data, layout, config);
      charts.push(div);
    } catch (error) {
      div.classList.add("failed");
      div.textContent = "This chart could not be drawn: " + error.message;
      root.dataset.error = error.message;
    }
  };
  const repaint = () => { for (const div of charts) Plotly.relayout(div, themed()); };
  const drawn = (async () => {
    for (const source of document.querySelectorAll("script[data-chart]")) await draw(source);
    root.dataset.charts = charts.length;
  })();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

  // Paper is white, narrow and cannot be clicked.
  let closed = [];
  addEventListener("beforeprint", () => {
    root.classList.add("printing");
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const details of closed) details.open = true;
    for (const div of charts) Plotly.relayout(div, { ...themed(), width: 660, height: 380, autosize: false });
  });
  addEventListener("afterprint", () => {
    root.classList.remove("printing");
    for (const details of closed) details.open = false;
    for (const div of charts) Plotly.relayout(div, { ...themed(), width: null, height: null, autosize: true });
  });

  // The table: sort by clicking a heading, filter by words that must all occur.
  const table = document.getElementById("table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent.trim()).join(" ").toLowerCase());

  const key = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = text === "∞" ? Infinity : text === "-∞" ? -Infinity : Number(text.replace(/,/g, ""));
    return { text, number: text === "" ? NaN : number };
  };
  const sort = (column, descending) => {
    const sign = descending ? -1 : 1;
    const keyed = rows.map((row) => ({ row, ...key(row, column) }));
    // What is empty goes last in either direction; numbers come before words.
    keyed.sort((a, b) => {
      if ((a.text === "") !== (b.text === "")) return a.text === "" ? 1 : -1;
      if (Number.isNaN(a.number) !== Number.isNaN(b.number)) return Number.isNaN(a.number) ? 1 : -1;
      if (Number.isNaN(a.number)) return sign * a.text.localeCompare(b.text, undefined, { numeric: true });
      return a.number === b.number ? 0 : sign * (a.number < b.number ? -1 : 1);
    });
    body.append(...keyed.map(({ row }) => row));
    heads.forEach((head, at) => {
      if (at === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => sort(column, head.getAttribute("aria-sort") === "ascending"));
  });

  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const plural = (n) => n.toLocaleString("en") + (n === 1 ? " row" : " rows");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let visible = 0;
    rows.forEach((row, at) => {
      row.hidden = !words.every((word) => texts[at].includes(word));
      if (!row.hidden) visible += 1;
    });
    shown.textContent = visible === rows.length ? plural(visible) : `${visible.toLocaleString("en")} of ${plural(rows.length)}`;
  });
})();
