// What is shown is the address: a link shows the same, and the back button goes back.

const DATA = JSON.parse(document.getElementById("data").textContent);
const BOARDS = DATA.boards;

/** A figure's name, as it stands at the head of a column. */
const titled = (key) => {
  const name = DATA.labels[key];
  return name.includes("_") ? name : name[0].toUpperCase() + name.slice(1);
};

const FILTER_TIERS = ["verified-method", "verified-weights", "submitted", "reference"];
const MOST_CURVES = 8;

/** Read the address; what it says wrongly or not at all is the default. */
function readState() {
  const found = new URLSearchParams(location.hash.slice(1));
  const board = BOARDS.find((one) => one.id === found.get("suite")) || BOARDS[0];
  const labels = board.metrics.map((metric) => metric.label);
  const ids = new Set(board.rows.map((row) => row.id));
  const list = (name) => (found.get(name) || "").split(",").filter(Boolean);
  const one = (name, known) => (known.includes(found.get(name)) ? found.get(name) : known[0]);
  return {
    suite: board.id,
    metric: one("metric", labels),
    sort: one("sort", COLUMNS.map((column) => column.key)),
    dir: one("dir", ["", "asc", "desc"]),
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
  if (state.show) found.set("show", state.show.join(","));
  return `#${found}`;
}

const boardOf = (state) => BOARDS.find((one) => one.id === state.suite);

const metricOf = (state) =>
  boardOf(state).metrics.findIndex((metric) => metric.label === state.metric);

/** A row's figures in the chosen metric; null where it has none. */
const figuresOf = (row, state) => row.m[metricOf(state)] || null;

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

/** Rows whose curves are drawn: the chosen ones, else the first few and the references. */
function curveRows(state) {
  const rows = boardOf(state).rows.filter((row) => figuresOf(row, state));
  if (state.show) return state.show.map((id) => rows.find((row) => row.id === id)).filter(Boolean);
  const order = sorted(rows, { ...state, sort: "rank", dir: "" });
  const ranked = order.filter((row) => standing(row, state) === "ranked").slice(0, 6);
  const apart = order.filter((row) => row.reference && hasCurve(row, state));
  return [...ranked, ...apart].slice(0, MOST_CURVES);
}

/** The figures that a verified attack, submitted by somebody, has lowered. */
const worstOf = (figures) => (figures.best ? figures.best.figure : figures.worst);

function lowestFa(row, board) {
  let least = null;
  row.fa.forEach((figure, k) => {
    if (isFigure(figure) && (least === null || figure[0] < least.figure[0])) {
      least = { figure, attack: board.attacks[k].name };
    }
  });
  return least;
}

/** The shortest half-life over the unseen core attacks (else over all). */
function shortestHalfLife(figures, board) {
  const parts = figures.attacks
    .map((part, k) => part && { figure: part[1], attack: board.attacks[k] })
    .filter((part) => part && !part.attack.levels.length);
  const core = parts.filter((part) => part.attack.core);
  const chosen = core.length ? core : parts;
  const reached = chosen.filter((part) => isFigure(part.figure));
  reached.sort((a, b) => a.figure[0] - b.figure[0]);
  const never = chosen.find((part) => isBeyond(part.figure));
  return reached[0] || never || chosen[0] || { figure: null, attack: null };
}

// --- columns: how a cell is ordered (null: last); `best` is the direction that a first click takes

const COLUMNS = [
  { key: "rank", name: "Rank", best: "asc", of: (r, f) => f.rank },
  { key: "method", name: "Method", best: "asc", of: (r) => r.title.toLowerCase() },
  { key: "tier", name: "Tier", best: "asc", of: (r) => FILTER_TIERS.indexOf(tierOf(r)) },
  { key: "fu", name: titled("fu"), hint: "forget metric after unlearning, before any attack", best: "desc", of: (r, f) => valueOf(f.fu) },
  { key: "core", name: titled("core"), hint: "mean forget metric over the unseen core attacks; what ranks rest on", best: "desc", of: (r, f) => valueOf(f.core) },
  { key: "all", name: titled("all"), hint: "mean forget metric over all attacks", best: "desc", of: (r, f) => valueOf(f.all) },
  { key: "worst", name: titled("worst"), hint: "lowest forget metric over attacks and checkpoints that keep 90 % of the utility, and under the best known submitted attack", best: "desc", of: (r, f) => valueOf(worstOf(f)) },
  { key: "recovery", name: titled("recovery"), hint: "0 stayed forgotten, 1 known as before; mean over the attacks", best: "asc", of: (r, f) => valueOf(f.recovery) },
  { key: "half", name: titled("half"), hint: "optimizer steps until recovery reaches one half; the shortest over the core attacks", best: "desc", of: (r, f, b) => halfOrder(shortestHalfLife(f, b).figure) },
  { key: "kept", name: titled("kept"), hint: "of the metric that kept least, chance-corrected", best: "desc", of: (r) => valueOf(r.kept[r.worst_utility || 0]) },
  { key: "fa", name: titled("fa"), hint: "what the downstream user gets, against fine-tuning the original model; the lowest over the attacks", best: "desc", of: (r, f, b) => (lowestFa(r, b) ? lowestFa(r, b).figure[0] : null) },
  { key: "steps", name: "Steps", hint: "optimizer steps of unlearning", best: "asc", of: (r) => r.cost.steps ?? null },
  { key: "passes", name: "Passes", hint: "forward and backward passes through the layers", best: "asc", of: (r) => passesOf(r) },
  { key: "seconds", name: "Seconds", hint: "of unlearning, on the submitter's machine", best: "asc", of: (r) => r.cost.train_seconds ?? null },
  { key: "seeds", name: "Seeds", best: "desc", of: (r) => r.seeds.length },
];

function passesOf(row) {
  const { forward_passes: forward, backward_passes: backward } = row.cost;
  return forward === undefined && backward === undefined ? null : (forward || 0) + (backward || 0);
}

function halfOrder(figure) {
  if (isFigure(figure)) return figure[0];
  return isBeyond(figure) ? Infinity : null;
}

/** Rows in the chosen order, the apart ones after the others; rows without a value last. */
function sorted(rows, state) {
  const board = boardOf(state);
  const column = COLUMNS.find((one) => one.key === state.sort);
  const sign = (state.dir || column.best) === "asc" ? 1 : -1;
  const groups = ["ranked", "last", "reference"];
  const by = (row) => {
    const value = column.of(row, figuresOf(row, state), board);
    return value === null || value === undefined ? null : value;
  };
  const compare = (a, b) => {
    if (a === b) return 0;
    if (a === null) return 1;
    if (b === null) return -1;
    return sign * (a < b ? -1 : 1);
  };
  const core = (row) => valueOf(figuresOf(row, state).core) ?? -1;
  return [...rows].sort(
    (a, b) =>
      groups.indexOf(standing(a, state)) - groups.indexOf(standing(b, state)) ||
      compare(by(a), by(b)) ||
      core(b) - core(a) ||
      (a.id < b.id ? -1 : 1),
  );
}
