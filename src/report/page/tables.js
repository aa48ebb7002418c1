// The table of results: sort by clicking a heading, filter by words and comparisons, save as CSV.
const plural = (n) => n.toLocaleString("en") + (n === 1 ? " row" : " rows");
const number = (text) => {
  if (text === "") return NaN;
  if (text === "∞") return Infinity;
  return text === "-∞" ? -Infinity : Number(text.replace(/,/g, ""));
};
const compare = {
  "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b,
};

// Rows that are shown at first; the page comes with the others hidden.
const ROWS = 300;

const enableTable = () => {
  const table = document.getElementById("table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const cell = (row, column) => row.cells[column].textContent.trim();
  const texts = new Map(rows.map((row) => [row, [...row.cells].map((one) => one.textContent.trim()).join(" ").toLowerCase()]));

  const sort = (column, descending) => {
    const sign = descending ? -1 : 1;
    const keyed = rows.map((row) => ({ row, text: cell(row, column), number: number(cell(row, column)) }));
    // What is empty goes last in either direction; numbers come before words.
    keyed.sort((a, b) => {
      if ((a.text === "") !== (b.text === "")) return a.text === "" ? 1 : -1;
      if (Number.isNaN(a.number) !== Number.isNaN(b.number)) return Number.isNaN(a.number) ? 1 : -1;
      if (Number.isNaN(a.number)) return sign * a.text.localeCompare(b.text, undefined, { numeric: true });
      return a.number === b.number ? 0 : sign * (a.number < b.number ? -1 : 1);
    });
    body.append(...keyed.map(({ row }) => row));
    apply();
    heads.forEach((head, at) => {
      if (at === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => sort(column, head.getAttribute("aria-sort") === "ascending"));
  });

  // A word of the filter as a test of a row, or the name of the column that does not exist.
  const test = (word) => {
    const parts = word.match(/^(.+?)(<=|>=|!=|<|>|=)(.*)$/);
    if (!parts) {
      const without = word.startsWith("-") && word.length > 1;
      const text = without ? word.slice(1) : word;
      return (row) => texts.get(row).includes(text) !== without;
    }
    const [, name, operator, wanted] = parts;
    const names = (head) => [head.dataset.column.toLowerCase(), head.textContent.trim().toLowerCase()];
    const column = heads.findIndex((head) => names(head).includes(name));
    if (column < 0) return name;
    const limit = number(wanted);
    const order = compare[operator];
    if (order) return (row) => order(number(cell(row, column)), limit);
    const equal = (text) => (Number.isNaN(limit) ? text.toLowerCase() === wanted : number(text) === limit);
    return (row) => equal(cell(row, column)) === (operator === "=");
  };
  // A browser lays out thousands of rows slowly, so most wait until they are asked for.
  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const more = document.getElementById("more");
  let limit = ROWS;
  let kept = rows;
  const apply = () => {
    const tests = filter.value.toLowerCase().split(/\s+/).filter(Boolean).map(test);
    const unknown = tests.find((one) => typeof one === "string");
    if (unknown !== undefined) {
      shown.textContent = `there is no column “${unknown}”`;
      return;
    }
    kept = [...body.rows].filter((row) => tests.every((one) => one(row)));
    for (const row of rows) row.hidden = true;
    for (const row of kept.slice(0, limit)) row.hidden = false;
    shown.textContent = kept.length === rows.length ? plural(kept.length) : `${kept.length.toLocaleString("en")} of ${plural(rows.length)}`;
    more.hidden = kept.length <= limit;
    more.textContent = `Show all ${plural(kept.length)}`;
  };
  more.addEventListener("click", () => {
    limit = Infinity;
    apply();
  });
  filter.addEventListener("input", apply);
  apply();

  const quoted = (text) => {
    // A spreadsheet would run a text that begins like a formula.
    const safe = /^[=+@\t\r-]/.test(text) && Number.isNaN(number(text)) ? "'" + text : text;
    return /[",\n]/.test(safe) ? `"${safe.replace(/"/g, '""')}"` : safe;
  };
  const csv = () => {
    const plain = (row) => [...row.cells].map((one) => {
      const text = one.textContent.trim();
      return quoted(Number.isNaN(number(text)) ? text : text.replace(/,/g, ""));
    });
    const lines = kept.map(plain);
    return [heads.map((head) => quoted(head.dataset.column)), ...lines].map((line) => line.join(",")).join("\n") + "\n";
  };
  document.getElementById("csv").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = "results.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
  return { sort, apply, csv };
};
let results = enableTable();
