// Elements and numbers. Nothing here or elsewhere makes markup from a string: texts are strangers'.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element; `on...` attributes are listeners, null and false are left out. */
function h(tag, attributes, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return dress(document.createElementNS(SVG, tag), attributes, children);
}

function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name === "checked" || name === "value") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

/** A link to a record's address; anything but https is shown as text. */
function outside(address, text) {
  if (!/^https:\/\/[!-~]+$/.test(address || "")) return text || address || "";
  return h("a", { href: address, rel: "noopener noreferrer" }, text || address);
}

// --- figures: [value], [value, low, high] or [value, low, high, seeds, items], in thousandths;
// --- a number is that of the text that says why there is none

const isFigure = Array.isArray;

/** Whether a time was not reached within what was observed. */
const isBeyond = (figure) => DATA.beyond.includes(figure);

const valueOf = (figure) => (isFigure(figure) ? figure[0] / 1000 : null);

const number = (thousandths, digits = 3) => {
  const text = (thousandths / 1000).toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text;
};

function interval(figure, digits = 3) {
  if (!isFigure(figure) || figure.length < 3 || figure[1] === null) return "";
  const high = figure[2] === null ? "…" : number(figure[2], digits);
  return `[${number(figure[1], digits)}, ${high}]`;
}

/** Why a figure is undefined; of a figure its digits. */
function words(figure, digits = 3) {
  if (figure === null || figure === undefined) return "–";
  if (!isFigure(figure)) return DATA.texts[figure];
  return `${number(figure[0], digits)} ${interval(figure, digits)}`.trim();
}

/** The first words of a reason, for a narrow cell. */
const brief = (reason) => reason.split(/[:;]/)[0];

/** Two lines in a cell: the value, and its interval below. */
function figureCell(figure, digits = 3) {
  if (figure === null || figure === undefined) return h("span", { class: "none" }, "–");
  if (!isFigure(figure)) {
    return h("span", { class: "none", title: DATA.texts[figure] }, brief(DATA.texts[figure]));
  }
  return [
    h("span", { class: "value" }, number(figure[0], digits)),
    h("span", { class: "interval" }, interval(figure, digits)),
  ];
}

/** The same with the whole reason where there is no value. */
const figureFull = (figure, digits = 3) =>
  (isFigure(figure) ? figureCell(figure, digits) : words(figure, digits));

/** What a figure rests on, where it is not what the row's others do. */
const sizes = (figure, usual) =>
  isFigure(figure) && figure.length === 5 ? figure.slice(3) : usual;

const large = (value) => {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) >= 1e6) return value.toExponential(2).replace("e+", "e");
  return value >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
};

const bytes = (value) =>
  value >= 1e9 ? `${(value / 1e9).toPrecision(3)} GB` : `${(value / 1e6).toPrecision(3)} MB`;

/** Dotted names and values of nested settings. */
function flat(value, name = "") {
  if (value !== null && typeof value === "object" && !Array.isArray(value)) {
    return Object.entries(value).flatMap(([key, below]) =>
      flat(below, name ? `${name}.${key}` : key));
  }
  return [[name, typeof value === "string" ? value : JSON.stringify(value)]];
}

const hidden = (text) => h("span", { class: "hidden" }, text);

const TIERS = {
  "verified-method": ["verified method", "a maintainer ran the method itself again"],
  "verified-weights": ["verified weights", "a maintainer attacked the published weights again"],
  submitted: ["submitted", "run by its author"],
  reference: ["reference", "what others are measured against; never ranked"],
};

const tierOf = (row) => (row.reference ? "reference" : row.tier);

/** A tier's mark, by shape as well as by colour. */
function mark(tier, x, y, size = 6) {
  const at = { class: `mark ${tier}` };
  if (tier === "submitted") return svg("circle", { ...at, cx: x, cy: y, r: size });
  if (tier === "verified-weights") {
    const side = size * 1.8;
    return svg("rect", { ...at, x: x - side / 2, y: y - side / 2, width: side, height: side });
  }
  if (tier === "verified-method") {
    const s = size * 1.45;
    return svg("path", { ...at, d: `M${x} ${y - s}L${x + s} ${y}L${x} ${y + s}L${x - s} ${y}Z` });
  }
  const s = size * 0.85;
  return svg("path", {
    ...at,
    d: `M${x - s} ${y - s}L${x + s} ${y + s}M${x - s} ${y + s}L${x + s} ${y - s}`,
  });
}

const markPicture = (tier) => svg("svg", { viewBox: "0 0 16 16", class: "badge-mark", "aria-hidden": "true" },
  mark(tier, 8, 8, 5));

function badge(row) {
  const tier = tierOf(row);
  return h("span", { class: `badge ${tier}`, title: TIERS[tier][1] }, markPicture(tier), TIERS[tier][0]);
}

/** The same without its words, which a reader of the screen still hears. */
const tierMark = (row) => h("span", { class: "tier-mark", title: TIERS[tierOf(row)].join(": ") },
  markPicture(tierOf(row)), hidden(TIERS[tierOf(row)][0]));

const disputed = () =>
  h("span", { class: "disputed", title: "a verification contradicts it" }, "⚑ disputed");
