// What is shown, as files. Texts are strangers': none may become a formula or a command.

/** A figure's name as a field: `worst_case`. */
const fieldOf = (key) => DATA.labels[key].replace(/[ -]/g, "_");

const FIELDS = [
  ["core", (r, f) => f.core], ["all", (r, f) => f.all], ["fu", (r, f) => f.fu],
  ["worst", (r, f) => worstOf(f)], ["recovery", (r, f) => f.recovery],
  ["half", (r, f, b) => shortestHalfLife(f, b).figure],
  ["kept", (r) => r.kept[r.worst_utility || 0]],
  ["fa", (r, f, b) => (lowestFa(r, b) ? lowestFa(r, b).figure : null)],
].map(([key, of]) => [fieldOf(key), of]);

/** Rows as plain objects; figures as value, low, high and, where there is none, why. */
function plainRows(rows, state) {
  const board = boardOf(state);
  return sorted(rows, state).map((row) => {
    const figures = figuresOf(row, state);
    const plain = {
      rank: figures.rank, entry: row.id, method: row.title, tier: tierOf(row),
      disputed: row.disputed, status: figures.status, note: figures.note,
      ties: figures.ties, seen: row.seen, seeds: row.seeds.length,
    };
    for (const [name, of] of FIELDS) plain[name] = plainFigure(of(row, figures, board));
    if (figures.best) plain[fieldOf("worst")].attack = `${figures.best.title}, by ${figures.best.by}`;
    return { ...plain, cost: row.cost };
  });
}

function plainFigure(figure) {
  if (figure === null || figure === undefined) return { value: null, low: null, high: null };
  if (!isFigure(figure)) return { value: null, low: null, high: null, why: DATA.texts[figure] };
  const [value, low, high] = figure.map((one) => (one === null ? null : one / 1000));
  return { value, low: low ?? null, high: high ?? null };
}

function asJson(rows, state) {
  const board = boardOf(state);
  const { suite, version, engine, dtype, conditions } = board;
  return JSON.stringify({
    suite, version, engine, dtype, conditions, metric: state.metric, rows: plainRows(rows, state),
  }, null, 1);
}

/** A cell of text: quoted, and no formula for a program that opens the file. */
function csvText(text) {
  const plain = String(text).replace(/[\r\n\t]+/g, " ");
  const safe = /^[\s\u00a0\ufeff]*[=+\-@|%＝＋－＠]/.test(plain) ? `'${plain}` : plain;
  return `"${safe.replaceAll('"', '""')}"`;
}

function asCsv(rows, state) {
  const board = boardOf(state);
  const head = ["suite", "metric", "rank", "entry", "method", "tier", "disputed", "status", "note",
    "seen", "seeds", ...FIELDS.flatMap(([name]) => [name, `${name}_low`, `${name}_high`]),
    "steps", "passes", "train_seconds"];
  const by = new Map(rows.map((row) => [row.id, row]));
  const lines = plainRows(rows, state).map((one) => [
    csvText(`${board.suite} ${board.version}`), csvText(state.metric), one.rank ?? "",
    csvText(one.entry), csvText(one.method), csvText(one.tier), one.disputed, csvText(one.status),
    csvText(one.note), csvText(one.seen.join(" ")), one.seeds,
    ...FIELDS.flatMap(([name]) => ["value", "low", "high"].map((end) => one[name][end] ?? "")),
    one.cost.steps ?? "", passesOf(by.get(one.entry)) ?? "", one.cost.train_seconds ?? "",
  ].join(","));
  return `${[head.join(","), ...lines].join("\r\n")}\r\n`;
}

const TEX = {
  "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", $: "\\$", "&": "\\&", "#": "\\#", "%": "\\%",
  _: "\\_", "^": "\\textasciicircum{}", "~": "\\textasciitilde{}", "<": "\\textless{}",
  ">": "\\textgreater{}", '"': "\\textquotedbl{}", "|": "\\textbar{}",
};

/** Text that LaTeX prints as it stands. */
const tex = (text) =>
  String(text).replace(/[\s\u2028\u2029]+/g, " ").replace(/[\\{}$&#%_^~<>"|]/g, (char) => TEX[char]);

function texFigure({ value, low, high }) {
  if (value === null) return "--";
  const shown = `${value.toFixed(3)}`;
  return low === null || high === null ? `$${shown}$` : `$${shown}$ {\\footnotesize $[${low.toFixed(3)}, ${high.toFixed(3)}]$}`;
}

const TEX_FIELDS = ["fu", "core", "worst", "recovery", "kept"];

function asLatex(rows, state) {
  const board = boardOf(state);
  const lines = plainRows(rows, state).map((one) => [
    one.rank ?? "--", tex(one.method) + (one.disputed ? " (disputed)" : ""), tex(TIERS[one.tier][0]),
    ...TEX_FIELDS.map((key) => texFigure(one[fieldOf(key)])),
  ].join(" & "));
  return [
    `% ilubench ${tex(board.name)}, ${tex(state.metric)}; 95 % intervals; needs booktabs`,
    "\\begin{tabular}{rllrrrrr}", "\\toprule",
    `${["Rank", "Method", "Tier", ...TEX_FIELDS.map((key) => tex(titled(key)))].join(" & ")} \\\\`,
    "\\midrule", ...lines.map((line) => `${line} \\\\`), "\\bottomrule", "\\end{tabular}", "",
  ].join("\n");
}

const ACCENTS = ["aa", "AA", "ae", "AE", "oe", "OE", "o", "O", "l", "L", "ss", "i", "j", "c", "v",
  "H", "u", "k", "r", "d", "b", "t", "url", "emph", "textit", "textbf", "textsc", "texttt"];

/** A BibTeX entry of known shape and harmless commands; null where the text is none. */
function harmlessEntry(text) {
  const found = /^\s*@([a-z]+)\s*\{\s*([^\s,{}"#%]+)\s*,([\s\S]*)\}\s*$/i.exec(text);
  if (!found || ["preamble", "string", "comment"].includes(found[1].toLowerCase())) return null;
  let depth = 0;
  for (const char of found[3].replace(/\\[{}]/g, "")) {
    depth += char === "{" ? 1 : char === "}" ? -1 : 0;
    if (depth < 0) return null;
  }
  if (depth !== 0) return null;
  const body = found[3].replace(/\\([a-zA-Z]+|\^\^)/g, (whole, name) =>
    ACCENTS.includes(name) ? whole : name).replaceAll("^^", "^");
  return `@${found[1].toLowerCase()}{${found[2].replace(/[\\^]/g, "")},${body}}`;
}

/** Citations of the rows; one that is no BibTeX becomes the note of an entry. */
function asBibtex(rows, state) {
  const found = new Set();
  for (const row of sorted(rows, state)) {
    const { citation, paper } = row.by;
    if (!citation.trim() && !paper) continue;
    found.add(harmlessEntry(citation) || [
      `@misc{${row.id},`, `  title = {${tex(row.title)}},`,
      citation.trim() ? `  note = {${tex(citation.trim())}},` : null,
      paper ? `  url = {${paper.replace(/[\\{}%#^~]/g, encodeURIComponent)}},` : null, "}",
    ].filter(Boolean).join("\n"));
  }
  return [...found].join("\n\n") + (found.size ? "\n" : "% no row names a citation\n");
}

const EXPORTS = [
  ["CSV", "csv", "text/csv", asCsv], ["JSON", "json", "application/json", asJson],
  ["LaTeX", "tex", "application/x-tex", asLatex], ["BibTeX", "bib", "application/x-bibtex", asBibtex],
];

function exportButtons(rows, state) {
  return h("div", { class: "exports", role: "group", "aria-label": "Export what is shown" },
    EXPORTS.map(([name, ending, kind, make]) => h("button", {
      type: "button", "data-key": `export-${ending}`,
      onclick: () => save(`ilubench-${state.suite}.${ending}`, kind, make(rows, state)),
    }, name)));
}

function save(name, kind, text) {
  const place = URL.createObjectURL(new Blob([text], { type: `${kind};charset=utf-8` }));
  const link = h("a", { href: place, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(place), 10000);
}
