// Puts the page together, again after every change of the address.

/** Go to a state; `quiet` leaves no step for the back button. */
function go(state, quiet = false) {
  const to = address(state);
  if (to === location.hash) return;
  if (quiet) location.replace(to);
  else location.hash = to;
}

const at = (id) => document.getElementById(id);

function fill(id, ...content) {
  at(id).replaceChildren(...content.flat(Infinity).filter(Boolean));
}

function render() {
  const state = readState();
  const focused = document.activeElement && document.activeElement.dataset.key;
  const board = boardOf(state);
  fill("suites", choices("suite", BOARDS.map((one) => [one.id, one.id]), state));
  const labels = board.metrics.map(({ label: name }) => [name, name]);
  fill("metrics", choices("metric", labels.length > 1 ? [["", "All metrics"], ...labels] : labels, state));
  fill("about", about(board));
  const measured = board.rows.length > 0 && board.metrics.length > 0;
  for (const part of document.querySelectorAll("[data-measured]")) part.hidden = !measured;
  at("unmeasured").hidden = measured;
  if (measured) renderMeasured(state, board);
  at("published").hidden = !board.reported.length;
  fill("reported", board.reported.length ? publishedTables(board) : "");
  if (focused) {
    const again = document.querySelector(`[data-key="${CSS.escape(focused)}"]`);
    if (again && again !== document.activeElement) again.focus({ preventScroll: true });
  }
  renderDetail(state, board, focused);
}

function renderMeasured(state, board) {
  const rows = shownRows(state);
  const all = board.rows.filter((row) => figuresOf(row, state));
  const one = drawn(state);
  const metrics = state.metric ? [board.metrics[metricOf(state)]] : board.metrics;
  fill("verdict", verdict(state, board, metrics));
  fill("legend", tierLegend(rows));
  renderScatter(rows, state, metrics);
  renderFilters(state, board);
  fill("count", `${rows.length} of ${all.length} rows`);
  const table = at("table");
  const place = table.scrollLeft;
  fill("table", rows.length ? rankingTable(rows, state)
    : h("p", { class: "empty" }, "No row passes the filters."));
  table.scrollLeft = place;
  fill("exports", exportButtons(rows, state));
  fill("below", below(metrics));
  const curves = curveRows(state);
  for (const part of document.querySelectorAll(".of-metric")) part.textContent = `, ${one.metric}`;
  fill("curve-kind", choices("curve", [["recovery", titled("recovery")], ["forget", one.metric]], state));
  fill("curve-legend", curveLegend(curves, one));
  fill("curves", curves.length ? smallMultiples(one, curves, at("curves").clientWidth)
    : h("p", { class: "empty" }, "Choose rows in the table's last column."));
  fill("curve-table", curves.length ? curveTable(one, curves) : "");
  fill("heat-kind", choices("heat", [["recovery", titled("recovery")], ["ra", DATA.labels.ra]], state));
  fill("heat", heatmap(inOrder(rows.filter((row) => figuresOf(row, one)), state), one));
}

/** One picture a metric. */
function renderScatter(rows, state, metrics) {
  const width = at("scatter").clientWidth;
  const columns = Math.max(1, Math.min(metrics.length, Math.floor(width / 380)));
  const each = Math.floor((width - (columns - 1) * 14) / columns);
  fill("scatter", metrics.map(({ label: name }) => scatter(rows, { ...state, metric: name }, each)), tooltip());
}

function verdict(state, board, metrics) {
  const seeds = board.rows.map((row) => row.seeds.length);
  const [fewest, most] = [Math.min(...seeds), Math.max(...seeds)];
  return [
    h("p", { class: "said" }, state.metric ? metrics[0].verdict : board.verdict),
    h("p", { class: "soft" }, `By ${DATA.labels.core}: 1 = forgotten whatever it is fine-tuned on. ` +
      `${fewest === most ? fewest : `${fewest} to ${most}`} seeds; paired tests, 5 % for all pairs of a metric together.`),
  ];
}

/** Bands show for the curve that the pointer is on, in all pictures. */
function highlight(event) {
  const found = event.target.closest && event.target.closest("[data-curve]");
  const wanted = event.type === "pointerout" || !found ? null : found.dataset.curve;
  for (const one of document.querySelectorAll("#curves .curve")) {
    one.classList.toggle("on", one.dataset.curve === wanted);
  }
}

/** Links that change one thing: where they lead is the state they make. */
function choices(name, known, state) {
  return known.map(([value, text]) => {
    const next = name === "suite"
      ? { ...readState(), suite: value, metric: "", row: "", show: null, q: "", tier: [], seen: "any" }
      : { ...state, [name]: value, row: "" };
    return h("a", {
      href: address(next), "aria-current": state[name] === value ? "true" : null,
      "data-key": `${name}-${value}`,
    }, text);
  });
}

function about(board) {
  const version = board.version === null ? "" : ` Suite version ${board.version}, ${board.how}.`;
  return [h("strong", null, board.title), h("span", null, `.${version}`)];
}

/** What each metric is, its verdict and what it could have shown; what a reader must know of any. */
function below(metrics) {
  const notes = [...new Set(metrics.flatMap((metric) => metric.notes))];
  return [
    metrics.map(({ label: name, turned, verdict: says, shows }) => h("p", null, h("strong", null, name),
      turned ? ` (${turned})` : "", `: ${metrics.length > 1 ? `${says} ` : ""}${shows}`)),
    notes.length ? h("ul", null, notes.map((note) => h("li", null, note))) : null,
  ];
}

// --- filters: made once for a suite, so that typing keeps its place

function renderFilters(state, board) {
  const tiers = FILTER_TIERS.filter((tier) => board.rows.some((row) => tierOf(row) === tier));
  fill("tiers", h("legend", null, "Tier"), tiers.map((tier) => h("label", null, h("input", {
    type: "checkbox", checked: state.tier.includes(tier), "data-key": `tier-${tier}`,
    onchange: (event) => {
      const now = readState();
      const kept = now.tier.filter((one) => one !== tier);
      go({ ...now, tier: event.target.checked ? [...kept, tier] : kept }, true);
    },
  }), TIERS[tier][0])));
  if (state.tier.length || state.seen !== "any" || state.q) at("filter").open = true;
  renderPicker(state, board);
  if (at("search").value.trim() !== state.q.trim()) at("search").value = state.q;
  at("seen").value = state.seen;
}

/** Which columns are shown; those that are not the chosen metrics' are left out. */
function renderPicker(state, board) {
  const always = ["rank", "method"];
  const standard = COLUMNS.filter(({ key, page }) => page && !always.includes(key)).map(({ key }) => key);
  const chosen = state.cols || standard;
  const known = columnsOf(board).filter(({ key, kind, across }) =>
    !always.includes(key) && (state.metric || across || kind !== "figure" || key === "core"));
  fill("columns", h("legend", { class: "hidden" }, "Columns"), known.map(({ key, label: name, meaning }) =>
    h("label", { title: meaning }, h("input", {
      type: "checkbox", checked: chosen.includes(key), "data-key": `column-${key}`,
      onchange: (event) => {
        const next = event.target.checked ? [...chosen, key] : chosen.filter((one) => one !== key);
        const same = next.length === standard.length && standard.every((one) => next.includes(one));
        go({ ...readState(), cols: same ? null : next }, true);
      },
    }), capital(name))));
}

// --- the row's dialog

function renderDetail(state, board, focused) {
  const dialog = at("detail");
  const row = board.rows.find((one) => one.id === state.row);
  if (!row) {
    if (!dialog.open) return;
    dialog.close();
    delete dialog.dataset.shown;
    // what had the focus before was drawn anew
    const from = document.querySelector(`[data-key="${CSS.escape(dialog.dataset.from)}"]`);
    if (from) from.focus({ preventScroll: true });
    return;
  }
  if (!dialog.open) dialog.dataset.from = focused || `row-${row.id}`;
  const known = dialog.dataset.shown === address(state);
  dialog.dataset.shown = address(state);
  if (!known) dialog.replaceChildren(...detail(row, state).filter(Boolean));
  if (!dialog.open) dialog.showModal();
  if (!known) {
    dialog.scrollTop = 0;
    at("detail-title").focus();
  }
}

// --- the point's words

const tooltip = () => h("div", { id: "tip", hidden: true, "aria-hidden": "true" });

function tell(event) {
  const point = event.target.closest && event.target.closest(".point");
  const tip = at("tip");
  if (!tip) return;
  tip.hidden = !point || ["pointerout", "focusout"].includes(event.type);
  if (tip.hidden) return;
  tip.replaceChildren(h("strong", null, point.dataset.name),
    ...point.dataset.told.split("\n").map((line) => h("div", null, line)));
  const box = at("scatter").getBoundingClientRect();
  const from = point.getBoundingClientRect();
  const left = from.left - box.left + from.width / 2 - tip.offsetWidth / 2;
  tip.style.left = `${Math.max(0, Math.min(left, box.width - tip.offsetWidth))}px`;
  const above = from.top - box.top - tip.offsetHeight - 4;
  tip.style.top = `${above >= 0 ? above : from.bottom - box.top + 4}px`;
}

// --- light and dark

const dark = window.matchMedia("(prefers-color-scheme: dark)");

function themed(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  const now = document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  at("theme").setAttribute("aria-pressed", String(now === "dark"));
  return now;
}

/** What was chosen before; a browser may forbid a file to remember. */
function remembered(theme) {
  try {
    if (theme) localStorage.setItem("ilubench-theme", theme);
    return localStorage.getItem("ilubench-theme");
  } catch {
    return null;
  }
}

function start() {
  themed(["light", "dark"].find((one) => one === remembered()));
  at("theme").hidden = false;
  at("theme").addEventListener("click", () => {
    remembered(themed(themed() === "dark" ? "light" : "dark"));
    if (BOARDS.length) render();
  });
  if (!BOARDS.length) return;
  dark.addEventListener("change", () => render(themed()));
  at("content").hidden = false;
  at("search").addEventListener("input", (event) => go({ ...readState(), q: event.target.value }, true));
  at("seen").addEventListener("change", (event) => go({ ...readState(), seen: event.target.value }, true));
  at("reset").addEventListener("click", () => go({ ...readState(), q: "", seen: "any", tier: [] }));
  at("detail").addEventListener("cancel", (event) => {
    event.preventDefault();
    go({ ...readState(), row: "" });
  });
  at("detail").addEventListener("click", (event) => {
    if (event.target === at("detail")) go({ ...readState(), row: "" });
  });
  for (const type of ["pointerover", "pointerout", "focusin", "focusout"]) {
    at("scatter").addEventListener(type, tell);
  }
  for (const type of ["pointerover", "pointerout"]) {
    for (const id of ["curves", "curve-legend"]) at(id).addEventListener(type, highlight);
  }
  for (const button of document.querySelectorAll("[data-picture]")) {
    button.addEventListener("click", () => savePicture(button.dataset.picture));
  }
  window.addEventListener("hashchange", render);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) {
      width = window.innerWidth;
      render();
    }
  });
  render();
}

start();
