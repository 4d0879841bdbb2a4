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
  fill("metrics", choices("metric", board.metrics.map(({ label: name }) => [name, name]), state));
  fill("about", about(board));
  const measured = board.rows.length > 0 && metricOf(state) >= 0;
  for (const part of document.querySelectorAll("[data-measured]")) part.hidden = !measured;
  at("unmeasured").hidden = measured;
  if (measured) renderMeasured(state, board);
  at("published").hidden = !board.reported.length;
  fill("reported", board.reported.length ? reportedTable(board.reported) : "");
  if (focused) {
    const again = document.querySelector(`[data-key="${CSS.escape(focused)}"]`);
    if (again && again !== document.activeElement) again.focus({ preventScroll: true });
  }
  renderDetail(state, board, focused);
}

function renderMeasured(state, board) {
  const rows = shownRows(state);
  const all = board.rows.filter((row) => figuresOf(row, state));
  fill("legend", tierLegend(rows));
  fill("scatter", scatter(rows, state, at("scatter").clientWidth), tooltip());
  renderFilters(state, board);
  fill("count", `${rows.length} of ${all.length} rows`);
  const table = at("table");
  const place = table.scrollLeft;
  fill("table", rows.length ? rankingTable(rows, state)
    : h("p", { class: "empty" }, "No row passes the filters."));
  table.scrollLeft = place;
  fill("exports", exportButtons(rows, state));
  fill("below", below(board.metrics[metricOf(state)]));
  const curves = curveRows(state);
  fill("curve-kind", choices("curve", [["recovery", titled("recovery")], ["forget", state.metric]], state));
  fill("curve-legend", curveLegend(curves, state));
  fill("curves", curves.length ? smallMultiples(state, curves, at("curves").clientWidth)
    : h("p", { class: "empty" }, "Choose rows in the table's last column."));
  fill("curve-table", curves.length ? curveTable(state, curves) : "");
  fill("heat-kind", choices("heat", [["recovery", titled("recovery")], ["ra", DATA.labels.ra]], state));
  fill("heat-legend", heatLegend(state));
  const order = sorted(rows, { ...state, sort: "rank", dir: "" });
  fill("heat", heatmap(order, state));
}

/** Links that change one thing: where they lead is the state they make. */
function choices(name, known, state) {
  return known.map(([value, text]) => {
    const next = name === "suite"
      ? { ...readState(), suite: value, row: "", show: null, q: "", tier: [], seen: "any" }
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

function below(metric) {
  return [
    metric.turned && h("p", null, `${metric.label} is ${metric.turned}.`),
    h("p", null, metric.shows),
    metric.notes.length ? h("ul", null, metric.notes.map((note) => h("li", null, note))) : null,
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
  if (at("search").value.trim() !== state.q.trim()) at("search").value = state.q;
  at("seen").value = state.seen;
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
  at("theme").addEventListener("click", () => remembered(themed(themed() === "dark" ? "light" : "dark")));
  dark.addEventListener("change", () => themed());
  if (!BOARDS.length) return;
  at("content").hidden = false;
  at("nothing").hidden = true;
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
