"use strict";
// What a page of a run does: copies, sorts, searches and filters. Every text is set as text, never as HTML.
(() => {
  const PLACEHOLDER = "<CLASS>", SHORT = 400, PAGE = 100;
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const make = (tag, className = "", text = "") => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text) element.textContent = text;
    return element;
  };
  document.documentElement.classList.add("js");

  const withSlots = (into, text) => {
    text.split(PLACEHOLDER).forEach((part, place) => {
      if (place) into.append(make("span", "slot", PLACEHOLDER));
      into.append(part);
    });
    return into;
  };
  const textOf = (text) => {
    const whole = make("bdi");
    if (text.length <= SHORT) return withSlots(whole, text);
    withSlots(whole, text.slice(0, SHORT) + "… ");
    const more = make("button", "more", `${text.length - SHORT} more characters`);
    more.addEventListener("click", () => { whole.replaceChildren(); withSlots(whole, text); });
    whole.append(more);
    return whole;
  };

  // Copy buttons: the text stands in the element that they name.
  const copy = async (text) => {
    try { await navigator.clipboard.writeText(text); } catch {
      const area = make("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  $$("[data-copy]").forEach((button) => button.addEventListener("click", async () => {
    const before = button.textContent;
    await copy(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "copied";
    setTimeout(() => { button.textContent = before; }, 1500);
  }));

  // A link to a step opens it.
  const openTarget = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", openTarget);
  openTarget();

  // The table of candidates. A row is [step, accuracy, loss, text, reason, by].
  const table = $("#candidates");
  if (!table) return;
  const [STEP, ACCURACY, LOSS, TEXT, REASON, BY] = [0, 1, 2, 3, 4, 5];
  const COLUMNS = { accuracy: ACCURACY, loss: LOSS, step: STEP, text: TEXT };
  const search = $("#search"), count = $("#count"), more = $("#more"), body = $("tbody", table);
  const state = { column: "accuracy", ascending: false, kind: "scored", words: "", shown: PAGE };
  let rows = null;
  const read = () => (rows ??= JSON.parse($("#rows").textContent));
  const kindOf = (row) => row[REASON].split(":")[0];
  const wanted = (row) => {
    if (state.kind === "scored" ? row[REASON] : state.kind !== "all" && kindOf(row) !== state.kind.slice(1)) return false;
    return !state.words || row[TEXT].toLowerCase().includes(state.words) || row[REASON].toLowerCase().includes(state.words);
  };
  const order = (a, b) => {
    const place = COLUMNS[state.column], way = state.ascending ? 1 : -1;
    const [x, y] = [a[place], b[place]];
    if ((x === null) !== (y === null)) return x === null ? 1 : -1;
    if (x !== y) return (x < y ? -1 : 1) * way;
    if (a[LOSS] !== b[LOSS]) return (a[LOSS] ?? 1e9) - (b[LOSS] ?? 1e9);
    return a[STEP] - b[STEP];
  };
  const cells = (row) => {
    const line = make("tr");
    line.append(make("td", "n", row[ACCURACY] === null ? "–" : row[ACCURACY].toFixed(2)));
    line.append(make("td", "n", row[LOSS] === null ? "–" : row[LOSS].toFixed(4)));
    const step = make("td", "n"), target = `step-${row[STEP]}`;
    if (document.getElementById(target)) {
      const link = make("a", "", String(row[STEP]));
      link.href = `#${target}`;
      step.append(link);
    } else step.textContent = row[STEP];
    const text = make("td", "text");
    text.append(textOf(row[TEXT]));
    if (row[BY]) text.append(make("span", "by", row[BY]));
    if (row[REASON]) { const why = make("small"); why.append(textOf(row[REASON])); text.append(why); }
    line.append(step, text);
    return line;
  };
  const draw = () => {
    const found = read().filter(wanted).sort(order), shown = found.slice(0, state.shown);
    body.replaceChildren(...shown.map(cells));
    count.textContent = `${shown.length.toLocaleString("en")} of ${found.length.toLocaleString("en")} shown`;
    more.hidden = shown.length === found.length;
    $$("th", table).forEach((head) => {
      const own = head.dataset.column === state.column;
      if (own) head.setAttribute("aria-sort", state.ascending ? "ascending" : "descending"); else head.removeAttribute("aria-sort");
    });
    $$(".chip[data-kind]").forEach((chip) => chip.setAttribute("aria-pressed", String(chip.dataset.kind === state.kind)));
  };
  const change = (values) => { Object.assign(state, { shown: PAGE }, values); draw(); };
  $$("th[data-column] button", table).forEach((button) => button.addEventListener("click", () => {
    const column = button.parentElement.dataset.column;
    change({ column, ascending: column === state.column ? !state.ascending : column !== "accuracy" });
  }));
  $$(".chip[data-kind]").forEach((chip) => chip.addEventListener("click", () => change({ kind: chip.dataset.kind })));
  search.addEventListener("input", () => change({ words: search.value.trim().toLowerCase() }));
  more.addEventListener("click", () => { state.shown += PAGE; draw(); });
  $("#rejected")?.remove(); // the chips show them

  // New rows of a run that is followed.
  table.addEventListener("ipo-rows", (event) => { read().push(...event.detail); draw(); });
})();
