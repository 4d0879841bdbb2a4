// All that is known of one row, in a dialog.

function detail(row, state) {
  const board = boardOf(state);
  const one = state.metric ? state : { ...state, metric: (board.metrics[weakest(row)] || {}).label };
  return [
    h("header", null,
      h("h2", { id: "detail-title", tabindex: "-1" }, row.title),
      h("button", {
        type: "button", class: "close", "aria-label": "Close", onclick: () => go({ ...state, row: "" }),
      }, "✕")),
    h("p", { class: "lead" }, badge(row), row.disputed ? disputed() : null, " ",
      `${row.method}, version ${row.version}, `, h("code", null, `leaderboards/${board.suite}/${row.id}.json`),
      `, suite ${board.name}, seeds ${row.seeds.join(", ")}`),
    row.reference ? null : h("div", null, standingText(row, state)),
    part("Figures", metricsTable(row, board),
      figuresOf(row, state) && bestText(figuresOf(row, state))),
    figuresOf(row, one) && part(`By attack, ${one.metric}`, attacksTable(row, one, board),
      h("p", { class: "soft" }, "Items back: of those whose forget metric unlearning moved by half of its scale or more, those " +
        "of which the attack undid half; original → unlearned → attacked.")),
    row.kept && part("Utility and fine-tuning accuracy", utilityTable(row, board),
      downstreamTable(row, board)),
    row.verified.length ? part("Verifications", row.verified.map(verification)) : null,
    part("Cost of unlearning", facts(Object.entries(row.cost).map(([name, value]) =>
      [name.replaceAll("_", " "), large(value)]))),
    part("Data and weights", dataFacts(row), weightsTable(row.weights)),
    part("Submission", submission(row)),
    part("Settings", facts(flat(row.settings))),
    part("Environment", facts(flat(JSON.parse(DATA.texts[row.machine])))),
    row.notes.length ? part("Notes of the run",
      h("ul", null, row.notes.map((note) => h("li", null, DATA.texts[note])))) : null,
  ];
}

const part = (title, ...content) => h("section", null, h("h3", null, title), content);

const wide = (name, table) =>
  h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, table);

const heads = (...names) =>
  h("thead", null, h("tr", null, names.map((name) => h("th", { scope: "col" }, name))));

const cells = (first, ...others) =>
  h("tr", null, h("th", { scope: "row" }, first), others.map((one) => h("td", null, one)));

function facts(pairs) {
  if (!pairs.length) return h("p", { class: "soft" }, "Nothing recorded.");
  return h("dl", null, pairs.map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
}

/** In the chosen metric, or in each. */
function standingText(row, state) {
  const board = boardOf(state);
  const titles = new Map(board.rows.map((one) => [one.id, one.title]));
  return board.metrics.map(({ label: name }, k) => {
    const figures = row.m[k];
    if (state.metric && state.metric !== name) return null;
    if (!figures) return h("p", null, `It has no row in ${name}.`);
    if (figures.rank === null) return h("p", null, `Not ranked in ${name}: ${figures.note}.`);
    const ties = figures.ties.map((id) => titles.get(id) || id);
    const apart = ties.length ? `not told apart from ${ties.join(", ")}` : "told apart from every other ranked row";
    return h("p", null, `Rank ${rankText(figures)} in ${name}: ${apart}.`);
  });
}

function bestText(figures) {
  if (!figures.best) return null;
  const { title, by, figure } = figures.best;
  return h("p", null, `Best known attack: ${title}, submitted by ${by}: ${DATA.labels.worst} ${words(figure)}.`);
}

function metricsTable(row, board) {
  const figures = columnsOf(board).filter((column) => column.kind === "figure");
  const body = board.metrics.map((metric, k) => {
    const found = row.m[k];
    if (!found) return cells(metric.label, "no row");
    const shown = figures.map((column) => [figureFull(found[column.key], column.digits),
      found.of[column.key] && h("span", { class: "where" }, found.of[column.key])]);
    return cells(metric.label, found.rank === null ? found.note : rankText(found), figureFull(found.f0),
      ...shown, found.n.join(" / "));
  });
  return wide("Figures of all metrics", h("table", { class: "plain" },
    heads("metric", "rank", DATA.labels.f0, ...figures.map((column) => column.label), "seeds / items"),
    h("tbody", null, body)));
}

function attacksTable(row, state, board) {
  const found = figuresOf(row, state);
  const body = board.attacks.map((attack, k) => {
    const figures = found.attacks[k];
    const name = attack.name + (row.seen.includes(attack.name) ? " (trained on)" : "");
    if (!figures) return cells(name, "not run", "", "", "", "", "", "");
    return cells(name, figureFull(figures[0]), figureFull(heatFigure(figures, { heat: "recovery" })),
      figureFull(figures[1], 0), figureFull(figures[2]), figureFull(figures[3]), cameBack(figures[6]),
      sizes(figures[0], found.n).join(" / "));
  });
  return wide("Figures by attack", h("table", { class: "plain" },
    heads("attack", DATA.labels.ra, DATA.labels.recovery, `${DATA.labels.half} (steps)`, DATA.labels.area,
      DATA.labels.never, "items back", "seeds / items"),
    h("tbody", null, body)));
}

/** Items that unlearning took away and the attack undid, the furthest first. */
function cameBack(changes) {
  if (!changes) return "–";
  const [taken, back, items] = changes;
  const text = `${back} of ${taken}`;
  if (!back) return text;
  const told = ([item, ...values]) => `${DATA.texts[item]}: ${values.map((value) => number(value, 2)).join(" → ")}`;
  return h("details", null, h("summary", null, text),
    h("ul", { class: "items" }, items.map((item) => h("li", null, told(item))),
      back > items.length ? h("li", null, `and ${back - items.length} more`) : null));
}

function utilityTable(row, board) {
  return wide("Utility", h("table", { class: "plain" },
    heads("utility metric", "unlearned", "kept of the original's", "seeds / items"),
    h("tbody", null, board.utility.map((name, k) => cells(
      name + (k === row.worst_utility ? " (worst)" : ""), figureFull(row.utility[k]), figureFull(row.kept[k]),
      sizes(row.kept[k], ["–"]).join(" / "))))));
}

function downstreamTable(row, board) {
  const line = (values, attack) => values
    ? values.map((value, k) => `${attack.levels[k - 1] || attack.steps[k]}: ${value === null ? "–" : number(value)}`).join(", ")
    : "–";
  return wide("Fine-tuning accuracy and utility along the attacks", h("table", { class: "plain" },
    heads("attack", DATA.labels.fa, "FA at each step", `${DATA.labels.kept} at each step`),
    h("tbody", null, board.attacks.map((attack, k) => cells(attack.name, figureFull(row.fa[k]),
      line(row.fa_steps[k], attack), line(row.kept_steps[k], attack))))));
}

function verification(one) {
  const told = `${one.kind === "method" ? "Method" : "Weights"}, by ${one.by}, ${one.day}, ` +
    `seeds ${one.seeds.join(", ")}: `;
  return [
    h("p", null, told, one.disputed ? disputed() : "within what seeds and items explain"),
    wide("Comparisons", h("table", { class: "plain" },
      heads("figure", "submitted", "verified", "prediction interval of the difference"),
      h("tbody", null, one.figures.map(([metric, figure, mine, theirs, low, high]) => cells(
        `${metric}, ${figure}`, number(mine), number(theirs),
        [`[${number(low)}, ${number(high)}]`, low > 0 || high < 0 ? " ⚑ excludes 0" : ""]))))),
  ];
}

function dataFacts(row) {
  const [path, sha, size] = row.samples;
  return facts([
    ["trains on, as declared", row.trains.join(", ") || "nothing declared"],
    ["attacks' data among it", row.seen.join(", ") || "none"],
    ["samples", [h("code", null, path), ` ${bytes(size)}, SHA-256 `, h("code", null, sha)]],
    ...(row.package ? [["package", [`${row.package.name} ${row.package.version}, SHA-256 `,
      h("code", null, row.package.sha256), " ", outside(row.package.url)]]] : []),
  ]);
}

function weightsTable(weights) {
  if (!weights.length) return h("p", { class: "soft" }, "No weights are named.");
  return wide("Weights", h("table", { class: "plain" },
    heads("seed", "SHA-256 of model.safetensors", "size", "from"),
    h("tbody", null, weights.map(([seed, sha, size, url]) => cells(
      seed, h("code", null, sha), bytes(size), outside(url) || "not published")))));
}

function submission(row) {
  const { by, day, code, paper, citation, remarks } = row.by;
  return [
    facts([["by", by], ["day", day], ["run", row.run],
      ...(code ? [["code", outside(code)]] : []), ...(paper ? [["paper", outside(paper)]] : [])]),
    remarks ? h("p", { class: "remarks" }, remarks) : null,
    citation ? h("pre", { tabindex: "0", "aria-label": "Citation" }, citation) : null,
  ];
}
