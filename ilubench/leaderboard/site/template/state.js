// What is shown is the address: a link shows the same, and the back button goes back.

const DATA = JSON.parse(document.getElementById("data").textContent);
const BOARDS = DATA.boards;
const COLUMNS = DATA.columns;

const capital = (name) => (name.includes("_") ? name : name[0].toUpperCase() + name.slice(1));

/** A figure's name, as it stands at the head of a column. */
const titled = (key) => capital(DATA.labels[key]);

const FILTER_TIERS = ["verified-method", "verified-weights", "submitted", "reference"];
const MOST_CURVES = 8;
const FIRST_CURVES = 3;

/** Read the address; what it says wrongly or not at all is the default. */
function readState() {
  const found = new URLSearchParams(location.hash.slice(1));
  const board = BOARDS.find((one) => one.id === found.get("suite")) || BOARDS[0];
  const labels = board.metrics.map((metric) => metric.label);
  const ids = new Set(board.rows.map((row) => row.id));
  const keys = COLUMNS.map((column) => column.key);
  const list = (name) => (found.get(name) || "").split(",").filter(Boolean);
  const one = (name, known) => (known.includes(found.get(name)) ? found.get(name) : known[0]);
  return {
    suite: board.id,
    metric: one("metric", labels.length > 1 ? ["", ...labels] : labels), // "": all
    sort: one("sort", [...keys, ...labels.map((label, k) => `core-${k}`)]),
    dir: one("dir", ["", "asc", "desc"]),
    cols: found.has("cols") ? list("cols").filter((key) => keys.includes(key)) : null,
    tier: list("tier").filter((tier) => FILTER_TIERS.includes(tier)),
    seen: one("seen", ["any", "none", "some"]),
    q: found.get("q") || "",
    row: ids.has(found.get("row")) ? found.get("row") : "",
    show: found.has("show") ? list("show").filter((id) => ids.has(id)).slice(0, MOST_CURVES) : null,
    curve: one("curve", ["recovery", "forget"]),
    heat: one("heat", ["recovery", "ra"]),
  };
}

const DEFAULTS = { sort: "rank", dir: "", seen: "any", q: "", row: "", curve: "recovery", heat: "recovery" };

/** The address of a state; what is the default is left out. */
function address(state) {
  const found = new URLSearchParams();
  found.set("suite", state.suite);
  if (state.metric) found.set("metric", state.metric);
  for (const name of ["sort", "dir", "seen", "q", "row", "curve", "heat"]) {
    if (state[name] !== DEFAULTS[name]) found.set(name, state[name]);
  }
  if (state.tier.length) found.set("tier", state.tier.join(","));
  for (const name of ["cols", "show"]) if (state[name]) found.set(name, state[name].join(","));
  return `#${found}`;
}

const boardOf = (state) => BOARDS.find((one) => one.id === state.suite);

const metricOf = (state) =>
  boardOf(state).metrics.findIndex((metric) => metric.label === state.metric);

/** Pictures are of one metric: the chosen one, else the first. */
const drawn = (state) => ({ ...state, metric: state.metric || (boardOf(state).metrics[0] || {}).label });

/** The last place that a row may have. */
const lastPlace = (figures) => figures.rank + figures.ties.length;

/** The metric in which a row stands worst; -1 where it has none. */
function weakest(row) {
  const place = (figures) => (figures === null ? -1 : (figures.rank || 0) + lastPlace(figures) / 1000);
  const places = row.m.map(place);
  const worst = Math.max(...places);
  return worst < 0 ? -1 : places.indexOf(worst);
}

/** A row's figures in the chosen metric, of all in that where it stands worst; null: it has none. */
const figuresOf = (row, state) => row.m[state.metric ? metricOf(state) : weakest(row)] || null;

/** Rows of the chosen suite and metric that pass the filters. */
function shownRows(state) {
  const wanted = state.q.trim().toLowerCase();
  return boardOf(state).rows.filter((row) => {
    if (!figuresOf(row, state)) return false;
    if (state.tier.length && !state.tier.includes(tierOf(row))) return false;
    if (state.seen !== "any" && (row.seen.length > 0) !== (state.seen === "some")) return false;
    const text = [row.title, row.id, row.method, row.by.by].join("\n").toLowerCase();
    return text.includes(wanted);
  });
}

/** Where a row stands: with the others, after them, or apart. */
function standing(row, state) {
  if (row.reference) return "reference";
  return figuresOf(row, state).status === "ok" ? "ranked" : "last";
}

const inOrder = (rows, state) => sorted(rows, { ...state, sort: "rank", dir: "" });

/** Rows whose curves are drawn: the chosen ones, else the first few and a reference. */
function curveRows(state) {
  const rows = boardOf(state).rows.filter((row) => figuresOf(row, drawn(state)));
  if (state.show) return state.show.map((id) => rows.find((row) => row.id === id)).filter(Boolean);
  const order = inOrder(rows, state);
  const ranked = order.filter((row) => standing(row, state) === "ranked").slice(0, FIRST_CURVES);
  return [...ranked, ...order.filter((row) => row.reference && hasCurve(row, state)).slice(0, 1)];
}

// --- columns: what they are comes with the page's data

/** The columns that a suite has figures for. */
const columnsOf = (board) => COLUMNS.filter((column) => column.kind === "own" ||
  board.rows.some((row) => row.m.some((figures) => figures && figures[column.key] !== null)));

/** The columns shown; of all metrics each has its own RA, and the others what is alike in all. */
function shownColumns(state) {
  const board = boardOf(state);
  const wanted = (column) => (state.cols
    ? ["rank", "method", ...state.cols].includes(column.key) : column.page);
  return columnsOf(board).filter(wanted).flatMap((column) => {
    if (state.metric || column.across || column.kind !== "figure") return [column];
    return column.key === "core" ? board.metrics.map((metric, k) =>
      ({ ...column, key: `core-${k}`, label: metric.label, of: k })) : [];
  });
}

/** What a column says of a row, and what of: of all metrics the least favourable. */
function cellOf(column, row, state) {
  const told = (figures, of) => ({ figure: figures[column.key], of });
  if (column.of !== undefined) return { figure: row.m[column.of] && row.m[column.of].core, of: "" };
  const own = figuresOf(row, state);
  if (state.metric || column.kind === "number") return told(own, own.of[column.key] || "");
  const found = row.m.map((figures, k) => figures &&
    told(figures, figures.of[column.key] || boardOf(state).metrics[k].label)).filter(Boolean);
  const sign = column.better === "higher" ? 1 : -1;
  const [least] = found.filter(({ figure }) => orderOf(column, figure) !== null)
    .sort((a, b) => sign * (orderOf(column, a.figure) - orderOf(column, b.figure)));
  return least || { figure: found[0].figure, of: "" };
}

/** How a cell is ordered; null: last. */
function orderOf(column, figure) {
  if (column.kind === "number") return figure;
  return isFigure(figure) ? figure[0] : isBeyond(figure) ? Number.MAX_VALUE : null;
}

const OWN_ORDER = {
  rank: (row, figures) => figures.rank && figures.rank + lastPlace(figures) / 1000,
  method: (row) => row.title.toLowerCase(),
  tier: (row) => FILTER_TIERS.indexOf(tierOf(row)),
};

const firstDirection = (column) => (column.better === "lower" ? "asc" : "desc");

/** Rows in the chosen order, the apart ones after the others; rows without a value last. */
function sorted(rows, state) {
  const known = shownColumns({ ...state, cols: COLUMNS.map((one) => one.key) });
  const column = known.find((one) => one.key === state.sort) || COLUMNS[0];
  const sign = (state.dir || firstDirection(column)) === "asc" ? 1 : -1;
  const groups = ["ranked", "last", "reference"];
  const by = (row) => (column.kind === "own" ? OWN_ORDER[column.key](row, figuresOf(row, state))
    : orderOf(column, cellOf(column, row, state).figure));
  const compare = (a, b) => {
    if (a === b) return 0;
    if (a === null) return 1;
    if (b === null) return -1;
    return sign * (a < b ? -1 : 1);
  };
  const core = (row) => valueOf(figuresOf(row, state).core) ?? -1;
  // of all metrics, rows alike in the one where they stand worst are told by the others
  const others = (row) => (state.metric ? 0
    : row.m.reduce((sum, figures) => sum + (figures && figures.rank ? figures.rank + lastPlace(figures) : 0), 0));
  return [...rows].sort(
    (a, b) =>
      groups.indexOf(standing(a, state)) - groups.indexOf(standing(b, state)) ||
      compare(by(a), by(b)) ||
      others(a) - others(b) ||
      core(b) - core(a) ||
      (a.id < b.id ? -1 : 1),
  );
}
