// What is shown, as files. Texts are strangers': none may become a formula or a command.

/** A figure's name as a field: `worst_case`. */
const fieldOf = (label) => label.replace(/[ -]/g, "_");

const FIGURES = COLUMNS.filter((column) => column.kind === "figure");
const NUMBERS = COLUMNS.filter((column) => column.kind === "number");

/** Rows as plain objects; figures as value, low, high and, where there is none, why. */
function plainRows(rows, state) {
  const labels = state.metric ? [state.metric] : boardOf(state).metrics.map((one) => one.label);
  return labels.flatMap((label) => {
    const one = { ...state, metric: label };
    return sorted(rows.filter((row) => figuresOf(row, one)), one).map((row) => plainRow(row, one));
  });
}

function plainRow(row, state) {
  const figures = figuresOf(row, state);
  const plain = {
    metric: state.metric, rank: figures.rank, rank_to: figures.rank && lastPlace(figures),
    entry: row.id, method: row.title, tier: tierOf(row), disputed: row.disputed,
    status: figures.status, note: figures.note, ties: figures.ties, seen: row.seen,
  };
  for (const { key, label } of FIGURES) {
    const of = figures.of[key];
    plain[fieldOf(label)] = { ...plainFigure(figures[key]), ...(of ? { of } : {}) };
  }
  for (const { key, label } of NUMBERS) plain[fieldOf(label)] = figures[key];
  return { ...plain, cost: row.cost };
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

const TEXTS = ["metric", "entry", "method", "tier", "status", "note"];

function asCsv(rows, state) {
  const board = boardOf(state);
  const ends = ["value", "low", "high"];
  const head = ["suite", ...TEXTS, "seen", "rank", "rank_to", "disputed",
    ...NUMBERS.map(({ label }) => fieldOf(label)),
    ...FIGURES.flatMap(({ label }) => ["", "_low", "_high"].map((end) => fieldOf(label) + end))];
  const lines = plainRows(rows, state).map((one) => [
    csvText(`${board.suite} ${board.version}`), ...TEXTS.map((name) => csvText(one[name])),
    csvText(one.seen.join(" ")), one.rank ?? "", one.rank_to ?? "", one.disputed,
    ...NUMBERS.map(({ label }) => one[fieldOf(label)] ?? ""),
    ...FIGURES.flatMap(({ label }) => ends.map((end) => one[fieldOf(label)][end] ?? "")),
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

function texFigure({ value, low, high }, digits) {
  if (value === null) return "--";
  const shown = `${value.toFixed(digits)}`;
  return low === null || high === null ? `$${shown}$` : `$${shown}$ {\\footnotesize $[${low.toFixed(digits)}, ${high.toFixed(digits)}]$}`;
}

/** The columns that are shown. */
function asLatex(rows, state) {
  const columns = shownColumns(state);
  const own = {
    rank: (row, figures) => (figures.rank === null ? "--" : rankText(figures).replace("–", "--")),
    method: (row) => tex(row.title) + (row.disputed ? " (disputed)" : ""),
    tier: (row) => tex(TIERS[tierOf(row)][0]),
  };
  const lines = sorted(rows, state).map((row) => columns.map((column) => {
    if (own[column.key]) return own[column.key](row, figuresOf(row, state));
    const { figure } = cellOf(column, row, state);
    return column.kind === "number" ? tex(large(figure)) : texFigure(plainFigure(figure), column.digits);
  }).join(" & "));
  return [
    `% ilubench ${tex(boardOf(state).name)}, ${tex(state.metric || "all metrics")}; 95 % intervals; needs booktabs`,
    `\\begin{tabular}{${columns.map((one) => (one.kind === "own" ? "l" : "r")).join("")}}`, "\\toprule",
    `${columns.map((column) => tex(capital(column.label))).join(" & ")} \\\\`,
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

// --- a part of the page as one SVG: boxes, texts and pictures where they lie, in their colours

const DRAWN = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-weight",
  "font-family", "text-anchor", "paint-order"];

function savePicture(id) {
  const paper = getComputedStyle(document.body).backgroundColor;
  const from = at(id).getBoundingClientRect();
  const size = { width: at(id).scrollWidth, height: at(id).scrollHeight };
  const out = svg("svg", { xmlns: SVG, ...size, viewBox: `0 0 ${size.width} ${size.height}` },
    svg("rect", { ...size, fill: paper }));
  const place = (box) => ({ x: box.left - from.left, y: box.top - from.top, width: box.width, height: box.height });
  const draw = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return node.data.trim() && out.append(drawnText(node, place));
    const style = getComputedStyle(node);
    if (style.display === "none" || node.matches(".hidden, #tip, button, nav")) return null;
    if (node.tagName === "svg") return out.append(drawnSvg(node, place(node.getBoundingClientRect())));
    const box = place(node.getBoundingClientRect());
    if (node.matches("td, .steps span")) out.append(svg("rect", { ...box, fill: style.backgroundColor }));
    return node.childNodes.forEach(draw);
  };
  at(id).childNodes.forEach(draw);
  save(`ilubench-${readState().suite}-${id}.svg`, "image/svg+xml", new XMLSerializer().serializeToString(out));
}

function drawnText(node, place) {
  const range = document.createRange();
  range.selectNodeContents(node);
  range.setStart(node, node.data.length - node.data.trimStart().length);
  const { x, y, height } = place(range.getBoundingClientRect());
  const { color, fontSize, fontFamily, fontWeight } = getComputedStyle(node.parentElement);
  return svg("text", {
    x, y: y + height / 2, fill: color, "dominant-baseline": "central",
    "font-size": fontSize, "font-family": fontFamily, "font-weight": fontWeight,
  }, node.data.trim());
}

function drawnSvg(picture, box) {
  const copy = picture.cloneNode(true);
  const [from, to] = [picture, copy].map((one) => [...one.querySelectorAll("*")]);
  from.forEach((element, k) => {
    const style = getComputedStyle(element);
    for (const name of DRAWN) to[k].setAttribute(name, style.getPropertyValue(name));
  });
  for (const [name, value] of Object.entries(box)) copy.setAttribute(name, value);
  for (const link of copy.querySelectorAll("a")) link.removeAttribute("href");
  for (const unseen of copy.querySelectorAll(".grip, .reach")) unseen.remove();
  return copy;
}
