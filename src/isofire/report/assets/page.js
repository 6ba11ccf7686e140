"use strict";
// Sorting, filtering and the choice of a cell. Without this script the page shows its tables, figures and one cell.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const get = (id) => document.getElementById(id);
  const data = JSON.parse(get("data").textContent);

  for (const part of all(".needs-js")) part.hidden = false;

  // ---- what is wider than its place says so
  const told = () => {
    for (const box of all(".scroll")) box.classList.toggle("more", box.scrollWidth > box.clientWidth + 1);
  };
  addEventListener("resize", told);
  told();

  // ---- sorting: a button in every heading; rows without a value stay last
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const value = cell.dataset.v ?? cell.textContent.trim();
    return value === "" || value === "–" ? null : value;
  };
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
  };
  const sort = (table, column, direction) => {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, i) => [valueOf(row, column), i, row]);
    rows.sort(([a, i], [b, j]) => {
      if (a === null || b === null) return (a === null) - (b === null) || i - j;
      return direction * compare(a, b) || i - j;
    });
    body.append(...rows.map(([, , row]) => row));
  };
  for (const table of all("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.dataset.key) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const descending = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sort(table, column, descending ? -1 : 1);
      });
    });
  }

  // ---- filtering: rows disappear, marks and fields of the figures and maps fade
  for (const form of all("form.filters")) {
    const rows = all("table.sortable tbody tr", form.parentElement);
    const apply = () => {
      const choices = all("select", form).filter((select) => select.value !== "");
      const words = form.elements.search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const out = new Set();
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        const fits = choices.every((select) => row.getAttribute(`data-f-${select.name}`) === select.value);
        row.hidden = !(fits && words.every((word) => text.includes(word)));
        if (row.hidden) out.add(row.dataset.entry);
      }
      for (const mark of all("svg [data-entry], .map [data-entry]")) mark.classList.toggle("dim", out.has(mark.dataset.entry));
      form.querySelector("output").textContent = `${rows.length - out.size} of ${rows.length} shown`;
    };
    form.addEventListener("input", apply);
    form.addEventListener("reset", () => setTimeout(apply));
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  // ---- a chosen cell: templates are filled with texts and paths, never with markup
  const look = (scope, path) => path.split(".").reduce((value, key) => value[key], scope);
  const fill = (root, scope) => {
    for (const element of all("[data-b]", root)) {
      for (const rule of element.dataset.b.split("|")) {
        const at = rule.indexOf("=");
        const parts = rule.slice(at + 1).split("+");
        const text = parts.map((part) => (part.startsWith("'") ? part.slice(1, -1) : look(scope, part))).join("");
        if (rule.slice(0, at) === "text") element.textContent = text;
        else element.setAttribute(rule.slice(0, at), text);
      }
    }
    return root;
  };
  const put = (id, template, items, base) => {
    const made = items.map((item, i) => fill(get(template).content.cloneNode(true), { P: item, B: base?.[i] }));
    get(id).replaceChildren(...made);
  };
  const mark = (key) => {
    for (const element of all("tr[data-cell], .mark")) element.classList.toggle("chosen", element.dataset.cell === key);
  };
  const choose = (key) => {
    const cell = data.cells[key];
    if (!cell) return;
    get("cell-title").textContent = cell.title;
    get("cell-about").textContent = cell.about;
    get("cell-spec").textContent = cell.spec;
    put("cell-facts", "t-fact", cell.facts);
    put("cell-layers", "t-layer", cell.layers);
    put("cell-rates", "t-rate", cell.layers, data.baselines[cell.base]);
    put("cell-values", "t-value", cell.values);
    get("cell-values-box").hidden = cell.values.length === 0;
    get("choose").value = key;
    mark(key);
  };
  const chooser = get("choose");
  if (chooser) {
    const rowOf = (entry) => document.querySelector(`#table tr[data-entry="${Number(entry)}"]`);
    chooser.addEventListener("change", () => choose(chooser.value));
    for (const element of all("[data-cell], [data-entry]")) {
      element.addEventListener("click", (event) => {
        event.stopPropagation();
        choose(element.dataset.cell ?? rowOf(element.dataset.entry)?.dataset.cell);
        get("cell").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
      });
    }
    mark(chooser.value);
  }
})();
