// The table of measured rows, and that of published ones.

function rankingTable(rows, state) {
  const board = boardOf(state);
  const order = sorted(rows, state);
  const groups = [
    ["ranked", ""],
    ["last", "Collapsed, diverged or incomplete: not ranked"],
    ["reference", "References: not ranked"],
  ];
  const bodies = groups.map(([name, title]) => {
    const mine = order.filter((row) => standing(row, state) === name);
    if (!mine.length) return null;
    const head = title && h("tr", { class: "apart" },
      h("th", { scope: "rowgroup", colspan: COLUMNS.length + 1 }, h("span", null, title)));
    return h("tbody", { class: name }, head, mine.map((row) => tableRow(row, state, board)));
  });
  return h("table", { class: "ranking" },
    h("caption", { class: "hidden" }, `${board.name}, ${state.metric}: measured rows`),
    h("thead", null, h("tr", null,
      COLUMNS.map((column) => sortHead(column, state)),
      h("th", { scope: "col" }, h("span", null, "Curves")))),
    bodies);
}

function sortHead(column, state) {
  const dir = state.sort === column.key ? state.dir || column.best : "";
  const next = dir ? (dir === "asc" ? "desc" : "asc") : column.best;
  const word = dir === "asc" ? "ascending" : "descending";
  return h("th", {
    scope: "col", class: `of-${column.key}`, "aria-sort": dir ? word : null,
  }, h("button", {
    type: "button", "data-key": `sort-${column.key}`, title: column.hint || null,
    onclick: () => go({ ...state, sort: column.key, dir: next === column.best ? "" : next }),
  }, column.name, h("span", { class: "arrow", "aria-hidden": "true" },
    dir === "asc" ? "▲" : dir === "desc" ? "▼" : "")));
}

function tableRow(row, state, board) {
  const figures = figuresOf(row, state);
  const cells = COLUMNS.map((column) => {
    const content = CELLS[column.key](row, figures, state, board);
    const kind = column.key === "method" ? "th" : "td";
    return h(kind, { class: `of-${column.key}`, scope: kind === "th" ? "row" : null }, content);
  });
  return h("tr", { "data-row": row.id }, cells, h("td", { class: "of-curve" }, curveBox(row, state)));
}

function curveBox(row, state) {
  const chosen = curveRows(state).map((one) => one.id);
  const on = chosen.includes(row.id);
  return h("label", { class: "box" }, h("input", {
    type: "checkbox", checked: on, "data-key": `curve-${row.id}`,
    disabled: !on && chosen.length >= MOST_CURVES,
    onchange: () => go({
      ...state,
      show: on ? chosen.filter((id) => id !== row.id) : [...chosen, row.id],
    }, true),
  }), hidden(`show the curves of ${row.title}`));
}

const CELLS = {
  rank: (row, figures, state) => {
    if (figures.rank === null) return h("span", { class: "none" }, row.reference ? "–" : figures.note);
    const shared = boardOf(state).rows.filter((one) => {
      const other = figuresOf(one, state);
      return other && other.rank === figures.rank;
    }).length > 1;
    return [h("span", { class: "value" }, figures.rank, shared ? "=" : ""),
      figures.ties.length ? hidden(`, not told apart from ${figures.ties.length} rows`) : null];
  },
  method: (row, figures, state) => [
    h("a", { href: address({ ...state, row: row.id }), "data-key": `row-${row.id}` }, row.title),
    row.seen.length ? h("span", { class: "tag" }, `trained on ${row.seen.join(", ")}`) : null,
    figures.status === "ok" ? null : h("span", { class: "tag fallen" }, figures.status),
  ],
  tier: (row) => [badge(row), row.disputed ? disputed() : null],
  fu: (row, figures) => figureCell(figures.fu),
  core: (row, figures) => figureCell(figures.core),
  all: (row, figures) => figureCell(figures.all),
  worst: (row, figures) => [
    figureCell(worstOf(figures)),
    figures.best
      ? h("span", { class: "where" }, `${figures.best.title}, by ${figures.best.by}`)
      : figures.worst_at && h("span", { class: "where" }, figures.worst_at[0]),
  ],
  recovery: (row, figures) => figureCell(figures.recovery),
  half: (row, figures, state, board) => {
    const { figure, attack } = shortestHalfLife(figures, board);
    return [figureCell(figure, 0), isFigure(figure) && h("span", { class: "where" }, attack.name)];
  },
  kept: (row, figures, state, board) => {
    const k = row.worst_utility || 0;
    return [figureCell(row.kept[k]), h("span", { class: "where" }, board.utility[k])];
  },
  fa: (row, figures, state, board) => {
    const least = lowestFa(row, board);
    if (!least) return figureCell(row.fa.find((figure) => figure !== null));
    return [figureCell(least.figure), h("span", { class: "where" }, least.attack)];
  },
  steps: (row) => large(row.cost.steps),
  passes: (row) => large(passesOf(row)),
  seconds: (row) => large(row.cost.train_seconds),
  seeds: (row) => row.seeds.length,
};

/** Rows of papers: what they say, as they say it. */
function reportedTable(reported) {
  return h("table", { class: "plain reported" },
    h("thead", null, h("tr", null,
      ["Method", "Model", "Figures as published", "From", "Provenance", "Remarks"].map((name) =>
        h("th", { scope: "col" }, name)))),
    h("tbody", null, reported.map((one) => h("tr", { "data-row": one.entry },
      h("th", { scope: "row" }, one.title),
      h("td", null, one.model),
      h("td", null, publishedFigures(one.figures)),
      h("td", null, outside(one.paper, one.where), one.citation
        ? h("details", null, h("summary", null, "citation"), h("pre", null, one.citation)) : null),
      h("td", null, provenance(one)),
      h("td", { class: "remarks" }, one.remarks)))));
}

function publishedFigures(figures) {
  const groups = new Map();
  for (const figure of figures) {
    const key = `${figure.metric} (higher: ${figure.higher_is})`;
    groups.set(key, [...(groups.get(key) || []), figure]);
  }
  return h("ul", { class: "published" }, [...groups].map(([name, all]) => h("li", null,
    h("span", { class: "soft" }, `${name}: `),
    all.map((figure, k) => [k ? ", " : "", `${figure.state} `, h("b", null, figure.value)]))));
}

function provenance(one) {
  const source = { paper: "the paper", poster: "the poster", notes: "others' notes" }[one.source];
  return one.checked
    ? `checked against ${source}`
    : h("span", { class: "tag unverified" }, `unverified transcription, from ${source}`);
}
