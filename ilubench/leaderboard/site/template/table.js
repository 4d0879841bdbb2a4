// The table of measured rows, and that of published ones.

function rankingTable(rows, state) {
  const board = boardOf(state);
  const order = sorted(rows, state);
  const columns = shownColumns(state);
  const groups = [
    ["ranked", ""],
    ["last", "Collapsed, diverged or incomplete: not ranked"],
    ["reference", "References: not ranked"],
  ];
  const bodies = groups.map(([name, title]) => {
    const mine = order.filter((row) => standing(row, state) === name);
    if (!mine.length) return null;
    const head = title && h("tr", { class: "apart" },
      h("th", { scope: "rowgroup", colspan: columns.length + 1 }, h("span", null, title)));
    return h("tbody", { class: name }, head, mine.map((row) => tableRow(row, state, columns)));
  });
  return h("table", { class: "ranking" },
    h("caption", { class: "hidden" }, `${board.name}, ${state.metric || "all metrics"}: measured rows`),
    h("thead", null, h("tr", null,
      columns.map((column) => sortHead(column, state)),
      h("th", { scope: "col" }, h("span", null, "Curves")))),
    bodies);
}

const classOf = (column) => `of-${column.key.split("-")[0]}`;

function sortHead(column, state) {
  const best = firstDirection(column);
  const dir = state.sort === column.key ? state.dir || best : "";
  const next = dir ? (dir === "asc" ? "desc" : "asc") : best;
  const word = dir === "asc" ? "ascending" : "descending";
  return h("th", {
    scope: "col", class: classOf(column), "aria-sort": dir ? word : null,
  }, h("button", {
    type: "button", "data-key": `sort-${column.key}`, title: column.meaning,
    onclick: () => go({ ...state, sort: column.key, dir: next === best ? "" : next }),
  }, capital(column.label), h("span", { class: "arrow", "aria-hidden": "true" },
    dir === "asc" ? "▲" : dir === "desc" ? "▼" : ""),
  h("span", { class: "unit" }, column.of !== undefined ? DATA.labels.core
    : column.key === "rank" && !state.metric ? "where it is worst" : "")));
}

function tableRow(row, state, columns) {
  const cells = columns.map((column) => {
    const own = OWN_CELLS[column.key];
    const content = own ? own(row, figuresOf(row, state), state) : cell(column, row, state);
    const kind = column.key === "method" ? "th" : "td";
    return h(kind, { class: classOf(column), scope: kind === "th" ? "row" : null }, content);
  });
  return h("tr", { "data-row": row.id }, cells, h("td", { class: "of-curve" }, curveBox(row, state)));
}

function cell(column, row, state) {
  const { figure, of } = cellOf(column, row, state);
  if (column.kind === "number") return large(figure);
  const ranked = column.of !== undefined && row.m[column.of];
  return [
    classOf(column) === "of-core" && bar(figure),
    figureCell(figure, column.digits),
    isFigure(figure) && of && h("span", { class: "where" }, of),
    ranked && ranked.rank && h("span", { class: "where" }, `rank ${rankText(ranked)}`),
  ];
}

/** A value between 0 and 1 and its interval, as a bar with a whisker. */
function bar(figure) {
  if (!isFigure(figure)) return null;
  const place = (value) => Math.max(0, Math.min(1000, value)) / 10;
  const [value, low, high] = figure;
  return svg("svg", { class: "bar-picture", viewBox: "0 0 100 10", "aria-hidden": "true" },
    svg("rect", { class: "track", x: 0, y: 1, width: 100, height: 8 }),
    svg("rect", { class: "value-bar", x: 0, y: 1, width: place(value), height: 8 }),
    low === undefined || low === null || high === null ? null
      : svg("path", { class: "whisker", d: `M${place(low)} 5H${place(high)}M${place(low)} 2v6M${place(high)} 2v6` }));
}

/** A rank is a range: behind those that are better, before those that are worse. */
const rankText = (figures) =>
  (figures.ties.length ? `${figures.rank}–${lastPlace(figures)}` : String(figures.rank));

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

const OWN_CELLS = {
  rank: (row, figures, state) => {
    if (figures.rank === null) return h("span", { class: "none" }, row.reference ? "–" : figures.note);
    return [h("span", { class: "value" }, rankText(figures)),
      state.metric ? null
        : h("span", { class: "where" }, boardOf(state).metrics[weakest(row)].label),
      figures.ties.length ? hidden(`, not told apart from ${figures.ties.length} rows`) : null];
  },
  method: (row, figures, state) => [
    h("a", { href: address({ ...state, row: row.id }), "data-key": `row-${row.id}` }, row.title),
    tierMark(row),
    row.seen.length ? h("span", { class: "tag" }, `trained on ${row.seen.join(", ")}`) : null,
    figures.status === "ok" ? null : h("span", { class: "tag fallen" }, figures.status),
    row.disputed ? disputed() : null,
  ],
  tier: (row) => badge(row),
};

// --- rows of papers: what they say, as they say it

function publishedTables(board) {
  return [
    board.published.map(({ metric, higher, states, rows }) => wide(metric, h("table", { class: "plain published" },
      h("caption", null, metric, h("span", { class: "soft" }, ` higher = ${higher}`)),
      heads("Method", ...states), h("tbody", null, rows.map(([name, ...values]) => cells(name, ...values)))))),
    wide("Where these figures are from", h("table", { class: "plain" },
      h("caption", null, "Where these figures are from"),
      heads("Method", "Model", "From", "Provenance", "Remarks"),
      h("tbody", null, board.reported.map((one) => h("tr", { "data-row": one.entry },
        h("th", { scope: "row" }, one.title), h("td", null, one.model),
        h("td", null, outside(one.paper, one.where), one.citation
          ? h("details", null, h("summary", null, "citation"), h("pre", null, one.citation)) : null),
        h("td", null, one.checked ? one.provenance : h("span", { class: "tag unverified" }, one.provenance)),
        h("td", { class: "remarks" }, one.remarks)))))),
  ];
}
