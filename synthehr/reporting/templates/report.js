"use strict";
(function () {
  const table = document.getElementById("all");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const written = new Map(rows.map((row, at) => [row, at]));

  function control(label, element) {
    const box = document.createElement("label");
    box.append(label + " ", element);
    return box;
  }
  function choice(name, values) {
    const select = document.createElement("select");
    select.name = name;
    select.append(new Option("all", ""));
    for (const value of values) select.append(new Option(value, value));
    return select;
  }
  const once = (key) => [...new Set(rows.map((row) => row.dataset[key]))];
  const words = document.createElement("input");
  words.type = "search";
  words.name = "words";
  const section = choice("section", once("section"));
  const verdict = choice("verdict", once("verdict"));
  const told = document.createElement("span");
  told.setAttribute("role", "status");
  const filters = document.createElement("div");
  filters.className = "filters";
  filters.append(control("Find", words), control("Section", section), control("Verdict", verdict), told);
  table.parentElement.before(filters);

  function filter() {
    const wanted = words.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const fits =
        (!section.value || row.dataset.section === section.value) &&
        (!verdict.value || row.dataset.verdict === verdict.value) &&
        (!wanted || row.textContent.toLowerCase().includes(wanted));
      row.hidden = !fits;
      if (fits) shown += 1;
    }
    told.textContent = shown + " of " + rows.length + " checks";
  }
  for (const one of [words, section, verdict]) one.addEventListener("input", filter);
  filter();

  function content(row, at) {
    const cell = row.cells[at];
    if (!("value" in cell.dataset)) return cell.textContent.trim().toLowerCase();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  }
  function sort(header, at) {
    const falling = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const sign = falling ? -1 : 1;
    const sorted = rows.slice().sort((first, second) => {
      const a = content(first, at);
      const b = content(second, at);
      if (a === null || b === null) return (a === null) - (b === null) || written.get(first) - written.get(second);
      return (a < b ? -sign : a > b ? sign : 0) || written.get(first) - written.get(second);
    });
    body.append(...sorted);
  }
  Array.from(table.tHead.rows[0].cells).forEach((header, at) => {
    if ("still" in header.dataset) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(header, at));
  });

  function land() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.hidden) {
      words.value = section.value = verdict.value = "";
      filter();
    }
    if (target.tagName === "DETAILS") target.open = true;
    for (let above = target.parentElement; above; above = above.parentElement) {
      if (above.tagName === "DETAILS") above.open = true;
    }
    target.scrollIntoView();
  }
  window.addEventListener("hashchange", land);
  if (location.hash) land();
})();
