// Pictures: utility against robustness, curves by step, methods by attacks.

/** Round values between two ends, about `wanted` of them. */
function ticks(low, high, wanted = 5) {
  const raw = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * power).find((size) => size >= raw);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9; k += 1) found.push(k * step);
  return found;
}

const tick = (value) => String(Number(value.toFixed(3)));

/** The ends of an axis that holds all values, with some air. */
function around(values, least = 0.1) {
  let low = Math.min(...values);
  let high = Math.max(...values);
  const missing = Math.max(0, least - (high - low)) / 2;
  const air = Math.max(high - low, least) * 0.06;
  return [low - missing - air, high + missing + air];
}

const scale = (ends, from, to) => (value) =>
  from + ((value - ends[0]) / (ends[1] - ends[0])) * (to - from);

const label = (x, y, text, attributes) => svg("text", { x, y, ...attributes }, text);

// --- utility against robustness

function scatter(rows, state, width) {
  const points = rows
    .map((row) => ({ row, figures: figuresOf(row, state) }))
    .filter(({ figures }) => figures && isFigure(figures.kept) && isFigure(figures.core))
    .map((point) => ({ ...point, x: point.figures.kept, y: point.figures.core }));
  if (!points.length) return h("p", { class: "empty" }, "No row here has both figures.");
  const size = { width, height: width < 560 ? 380 : 430, left: 58, right: 16, top: 14, bottom: 46 };
  const x = axisOf(around(reach(points.map((point) => point.x))), size.left, size.width - size.right);
  const y = axisOf(around(reach(points.map((point) => point.y))), size.height - size.bottom, size.top);
  const chart = svg("svg", {
    width: size.width, height: size.height, viewBox: `0 0 ${size.width} ${size.height}`,
    role: "group", "aria-label": `${titled("kept")} against ${DATA.labels.core} in ${state.metric}, ${points.length} rows`,
  });
  chart.append(...frame(size, x, y, [DATA.labels.kept, `${DATA.labels.core}, ${state.metric}`]));
  chart.append(...guide(size, y, boardOf(state).metrics[metricOf(state)].chance / 1000));
  const placed = points.map((point) => ({
    ...point, px: x.at(point.x[0] / 1000), py: y.at(point.y[0] / 1000),
  }));
  for (const point of placed) chart.append(bars(point, x, y));
  chart.append(front(placed));
  chart.append(svg("g", { "aria-hidden": "true" }, ...pointLabels(placed, size)));
  for (const point of placed) chart.append(pointLink(point, state));
  return chart;
}

/** The ranked rows than which no other is better in both figures, joined. */
function front(points) {
  const ranked = points.filter(({ row, figures }) => !row.reference && figures.status === "ok");
  const beats = (a, b) => a.x[0] >= b.x[0] && a.y[0] >= b.y[0] && (a.x[0] > b.x[0] || a.y[0] > b.y[0]);
  const best = ranked.filter((one) => !ranked.some((other) => beats(other, one)))
    .sort((a, b) => a.px - b.px);
  // what lies below and to the left of the steps is beaten in both
  const steps = best.map(({ px, py }, k) => (k ? `V${py}H${px}` : `M${px} ${py}`)).join("");
  return svg("path", { class: "front", d: steps, "aria-hidden": "true" });
}

/** Values and ends of intervals; one interval that is far wider than all values is cut. */
function reach(figures) {
  const values = figures.map((figure) => figure[0] / 1000);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const most = Math.max(high - low, 0.2) * 0.6;
  const ends = figures.flatMap((figure) => figure.slice(1, 3)).filter((end) => end !== null);
  return [...values, ...ends.map((end) => Math.max(low - most, Math.min(high + most, end / 1000)))];
}

const axisOf = (ends, from, to) => ({ ends, at: scale(ends, from, to), ticks: ticks(...ends) });

/** Grid, ticks and names of both axes. */
function frame(size, x, y, names) {
  const bottom = size.height - size.bottom;
  const parts = x.ticks.flatMap((value) => [
    svg("line", { class: "grid", x1: x.at(value), x2: x.at(value), y1: size.top, y2: bottom }),
    label(x.at(value), bottom + 17, tick(value), { class: "tick", "text-anchor": "middle" }),
  ]);
  parts.push(...y.ticks.flatMap((value) => [
    svg("line", {
      class: "grid", x1: size.left, x2: size.width - size.right, y1: y.at(value), y2: y.at(value),
    }),
    label(size.left - 7, y.at(value) + 4, tick(value), { class: "tick", "text-anchor": "end" }),
  ]));
  const middle = (size.top + bottom) / 2;
  parts.push(
    label((size.left + size.width - size.right) / 2, size.height - 8, `${names[0]} →`,
      { class: "axis", "text-anchor": "middle" }),
    label(0, 0, `${names[1]} →`,
      { class: "axis", "text-anchor": "middle", transform: `translate(13 ${middle}) rotate(-90)` }),
  );
  return [svg("g", { "aria-hidden": "true" }, ...parts)];
}

/** The line of a model that knows nothing, where it lies in the picture. */
function guide(size, y, chance) {
  if (chance <= y.ends[0] || chance >= y.ends[1]) return [];
  const at = y.at(chance);
  return [
    svg("line", { class: "guide", x1: size.left, x2: size.width - size.right, y1: at, y2: at }),
    label(size.left + 6, at - 5, "guessing", { class: "tick" }),
  ];
}

/** Both intervals, cut at the picture's edges. */
function bars(point, x, y) {
  const lines = [];
  const ends = (figure, axis) => (figure.length < 3 || figure[1] === null || figure[2] === null
    ? null
    : figure.slice(1, 3).map((end) =>
      axis.at(Math.max(axis.ends[0], Math.min(axis.ends[1], end / 1000)))));
  const across = ends(point.x, x);
  const upright = ends(point.y, y);
  if (across) {
    lines.push(svg("line", { x1: across[0], x2: across[1], y1: point.py, y2: point.py }));
  }
  if (upright) {
    lines.push(svg("line", { x1: point.px, x2: point.px, y1: upright[0], y2: upright[1] }));
  }
  return svg("g", { class: `bars ${tierOf(point.row)}`, "aria-hidden": "true" }, ...lines);
}

function pointLink(point, state) {
  const { row, figures } = point;
  const told = [
    row.title, TIERS[tierOf(row)][0], row.disputed && "disputed",
    figures.rank ? `rank ${figures.rank}` : figures.note,
    `${DATA.labels.core} ${words(point.y)}`, `${DATA.labels.kept} ${words(point.x)}`,
  ].filter(Boolean);
  return svg("a", {
    href: address({ ...state, row: row.id }), class: `point${figures.status === "ok" ? "" : " fallen"}`,
    "data-key": `point-${row.id}`, "data-told": told.slice(1).join("\n"), "data-name": row.title,
    "aria-label": told.join(", "),
  }, svg("circle", { class: "reach", cx: point.px, cy: point.py, r: 13 }),
  mark(tierOf(row), point.px, point.py));
}

const AROUND = [[1, 0], [-1, 0], [1, -1], [1, 1], [-1, -1], [-1, 1], [0, -1], [0, 1]];

/** A name beside each point; where there is no room, further off with a line to it. */
function pointLabels(points, size) {
  const taken = points.map(({ px, py }) => [px - 8, py - 8, px + 8, py + 8]);
  const apart = (a, b) => a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
  const inside = (box) => box[0] >= size.left && box[2] <= size.width - 2 && box[1] >= 0 &&
    box[3] <= size.height - size.bottom;
  const tried = (wide, { px, py }) => {
    for (let off = 11; off < 240; off += 9) {
      for (const [right, down] of AROUND) {
        const x = px + right * off;
        const y = py + down * off + 4;
        const left = right > 0 ? x : right < 0 ? x - wide : x - wide / 2;
        const box = [left, y - 11, left + wide, y + 4];
        if (inside(box) && taken.every((other) => apart(box, other))) return { box, off };
      }
    }
    return null;
  };
  return points.flatMap((point) => {
    const { title } = point.row;
    const text = title.length > 26 ? `${title.slice(0, 25)}…` : title;
    const found = tried(text.length * 6.6 + 4, point);
    if (!found) return [];
    const { box, off } = found;
    taken.push(box);
    const near = Math.max(box[0], Math.min(box[2], point.px));
    const line = off > 11 && svg("line", {
      class: "leader", x1: point.px, y1: point.py, x2: near, y2: (box[1] + box[3]) / 2,
    });
    return [line, label(box[0], box[3] - 4, text, { class: "name" })].filter(Boolean);
  });
}

function tierLegend(rows) {
  const tiers = FILTER_TIERS.filter((tier) => rows.some((row) => tierOf(row) === tier));
  const front = svg("svg", { viewBox: "0 0 16 16", class: "badge-mark", "aria-hidden": "true" },
    svg("path", { class: "front", d: "M0 3H8V13H16" }));
  return h("ul", { class: "legend" }, tiers.map((tier) => h("li", null, markPicture(tier),
    h("span", null, h("strong", null, TIERS[tier][0]), `: ${TIERS[tier][1]}`))),
  h("li", null, front, h("span", null, h("strong", null, "Pareto front"), ": ranked methods that no other beats in both")));
}

// --- curves by step

/** [value, low, high] at each checkpoint, from 0 (where recovery is 0 by definition). */
function course(figures, k, kind, attack) {
  const part = figures.attacks[k];
  if (!part) return null;
  const flatCourse = kind === "recovery" ? part[5] : part[4];
  if (!isFigure(flatCourse)) return null;
  const whole = flatCourse.length / 3 === attack.steps.length;
  const found = whole ? [] : [kind === "recovery" ? [0, 0, 0] : figures.fu.slice(0, 3)];
  for (let k = 0; k < flatCourse.length; k += 3) found.push(flatCourse.slice(k, k + 3));
  return found;
}

const hasCurve = (row, state) => boardOf(state).attacks.some((attack, k) =>
  course(figuresOf(row, state), k, state.curve, attack));

/** The curves of one attack: row -> [place, value, low, high] in plain numbers. */
function curvesOf(attack, k, rows, state) {
  return rows.map((row) => {
    const found = course(figuresOf(row, state), k, state.curve, attack);
    if (!found) return null;
    const skip = attack.steps.length - found.length;
    return found.map((point, j) => [j && skip > 0 ? j + skip : j,
      ...point.map((value) => (value === null ? null : value / 1000))]);
  });
}

function smallMultiples(state, rows, width) {
  const board = boardOf(state);
  const found = board.attacks.map((attack, k) => curvesOf(attack, k, rows, state));
  const values = found.flat(2).filter(Boolean).flatMap((point) => point.slice(1))
    .filter((value) => value !== null);
  if (!values.length) return h("p", { class: "empty" }, "None of the chosen rows has a curve here.");
  const ends = around([...values, 0], 0.3);
  const columns = Math.max(1, Math.min(3, Math.floor(width / 290)));
  const each = Math.floor((width - (columns - 1) * 14) / columns);
  return h("div", { class: "multiples" }, board.attacks.map((attack, k) =>
    h("figure", null,
      h("figcaption", null, attack.name, hidden(": "), attack.core ? "" : h("span", { class: "soft" }, ` not in ${DATA.labels.core}`)),
      multiple(attack, found[k], rows, { ends, width: each, state }))));
}

function multiple(attack, curves, rows, { ends, width, state }) {
  const size = { width, height: 200, left: 54, right: 20, top: 8, bottom: 36 };
  const last = attack.steps[attack.steps.length - 1];
  const x = { ends: [0, last], at: scale([0, last], size.left, size.width - size.right) };
  const y = axisOf(ends, size.height - size.bottom, size.top);
  const picture = svg("svg", {
    width: size.width, height: size.height, viewBox: `0 0 ${size.width} ${size.height}`,
    role: "img", "aria-label": `${state.curve === "forget" ? state.metric : titled("recovery")} under ${attack.name}, ` +
      `${rows.length} rows; the numbers are in the table below`,
  });
  const few = attack.levels.length || attack.steps.length <= 6;
  x.ticks = few ? attack.steps : ticks(0, last, 4).filter(Number.isInteger);
  const named = attack.levels.length ? "level" : "optimizer step";
  picture.append(...curveFrame(size, x, y, [named, state.curve === "forget" ? state.metric : DATA.labels.recovery]));
  curves.forEach((points, k) => {
    if (points) picture.append(curve(points.map((p) => [attack.steps[p[0]], ...p.slice(1)]), k, x, y));
  });
  return picture;
}

function curveFrame(size, x, y, names) {
  const bottom = size.height - size.bottom;
  return [
    ...y.ticks.flatMap((value) => [
      svg("line", {
        class: Math.abs(value) < 1e-9 ? "zero" : "grid",
        x1: size.left, x2: size.width - size.right, y1: y.at(value), y2: y.at(value),
      }),
      label(size.left - 6, y.at(value) + 4, tick(value), { class: "tick", "text-anchor": "end" }),
    ]),
    ...x.ticks.map((value) => label(x.at(value), bottom + 14, tick(value),
      { class: "tick", "text-anchor": "middle" })),
    label((size.left + size.width - size.right) / 2, size.height - 4, names[0],
      { class: "axis", "text-anchor": "middle" }),
    label(0, 0, names[1], { class: "axis", "text-anchor": "middle", transform: `translate(12 ${(size.top + bottom) / 2}) rotate(-90)` }),
  ];
}

function curve(points, k, x, y) {
  const at = (value, place) => `${x.at(value).toFixed(1)},${y.at(place).toFixed(1)}`;
  const banded = points.filter((point) => point[2] !== null && point[3] !== null);
  const band = [...banded.map((p) => at(p[0], p[3])), ...banded.reverse().map((p) => at(p[0], p[2]))];
  const line = points.map((p) => at(p[0], p[1])).join(" ");
  return svg("g", { class: `curve c${k}`, "data-curve": k },
    svg("polygon", { class: "band", points: band.join(" ") }),
    svg("polyline", { class: "grip", points: line }),
    svg("polyline", { class: "line", points: line }),
    points.map((p) => glyph(k, x.at(p[0]), y.at(p[1]))));
}

/** The mark of the k-th curve: four shapes, so that no two that share one share a dash. */
function glyph(k, x, y) {
  const s = 3.2;
  const shapes = [
    () => svg("circle", { class: "glyph", cx: x, cy: y, r: s }),
    () => svg("rect", { class: "glyph", x: x - s, y: y - s, width: 2 * s, height: 2 * s }),
    () => svg("path", { class: "glyph", d: `M${x} ${y - s - 1}L${x + s + 1} ${y + s}L${x - s - 1} ${y + s}Z` }),
    () => svg("path", { class: "glyph", d: `M${x} ${y - s - 1}L${x + s + 1} ${y}L${x} ${y + s + 1}L${x - s - 1} ${y}Z` }),
  ];
  return shapes[k % shapes.length]();
}

function curveLegend(rows, state) {
  const none = (row) => !hasCurve(row, state);
  return h("ul", { class: "legend curves" }, rows.map((row, k) => h("li", { "data-curve": k },
    svg("svg", { viewBox: "0 0 34 14", class: `swatch curve c${k}`, "aria-hidden": "true" },
      svg("polyline", { class: "line", points: "1,7 33,7" }), glyph(k, 17, 7)),
    h("span", null, row.title, none(row) ? h("span", { class: "soft" }, " (undefined)") : ""))));
}

/** The same numbers as a table. */
function curveTable(state, rows) {
  const board = boardOf(state);
  const body = board.attacks.flatMap((attack, k) => {
    const curves = curvesOf(attack, k, rows, state);
    return attack.steps.map((step, j) => h("tr", null,
      h("th", { scope: "row" }, `${attack.name}, ${attack.levels[j - 1] || `step ${step}`}`),
      curves.map((points) => {
        const point = points && points.find((one) => one[0] === j);
        return h("td", null, point ? words(point.slice(1).map((v) => (v === null ? null : v * 1000))) : "–");
      })));
  });
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Curves as a table" },
    h("table", { class: "plain" },
      h("thead", null, h("tr", null, h("th", { scope: "col" }, "attack, checkpoint"),
        rows.map((row) => h("th", { scope: "col" }, row.title)))),
      h("tbody", null, body)));
}

// --- methods by attacks

const RAMP = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];
const DIVERGING = {
  light: [[33, 102, 172], [247, 247, 247], [178, 24, 43]],
  dark: [[67, 147, 195], [44, 49, 56], [226, 106, 84]],
};

/** The colour at a place between 0 and 1 of a ramp. */
function colourAt(ramp, share) {
  const place = Math.min(1, Math.max(0, share)) * (ramp.length - 1);
  const k = Math.min(ramp.length - 2, Math.floor(place));
  return ramp[k].map((part, j) => Math.round(part + (ramp[k + 1][j] - part) * (place - k)));
}

/** Black or white, whichever is read more easily (WCAG 2 relative luminance). */
function inkOn(colour) {
  const [r, g, b] = colour.map((part) => {
    const c = part / 255;
    return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

/** Recovery: as far to both sides of 0 as the values go. RA: from the least to the most, cividis. */
function heatScale(values, state) {
  const far = Math.max(50, ...values.map(Math.abs));
  const [low, high] = state.heat === "ra" ? [Math.min(...values), Math.max(...values)] : [-far, far];
  const ramp = state.heat === "ra" ? [...RAMP].reverse() : DIVERGING[themed()];
  return { low, high, colour: (value) => colourAt(ramp, high > low ? (value - low) / (high - low) : 0.5) };
}

function heatFigure(part, state) {
  if (!part) return null;
  if (state.heat === "ra") return part[0];
  return isFigure(part[5]) ? part[5].slice(-3) : part[5];
}

function heatmap(rows, state) {
  const board = boardOf(state);
  if (!rows.length) return [h("p", { class: "empty" }, "No row passes the filters.")];
  const figures = rows.map((row) => figuresOf(row, state).attacks.map((part) => heatFigure(part, state)));
  const values = figures.flat().filter(isFigure).map((figure) => figure[0]);
  const scaled = values.length ? heatScale(values, state) : null;
  const head = h("tr", null, h("th", { scope: "col" }, "method"),
    board.attacks.map((attack) => h("th", { scope: "col" }, attack.name,
      attack.core ? "" : h("span", { class: "soft" }, "*"))));
  const body = rows.map((row, k) => h("tr", null, h("th", { scope: "row" }, row.title),
    figures[k].map((figure) => heatCell(figure, scaled))));
  return [scaled && heatLegend(scaled, state),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of methods by attacks" },
      h("table", { class: "heat" }, h("thead", null, head), h("tbody", null, body)))];
}

function heatCell(figure, scaled) {
  if (!isFigure(figure)) {
    const why = figure === null || figure === undefined ? "not run" : brief(words(figure));
    return h("td", { class: "none" }, why);
  }
  return coloured(h("td", { title: words(figure) }, number(figure[0])), scaled.colour(figure[0]));
}

function coloured(element, colour) {
  element.style.backgroundColor = `rgb(${colour.join(",")})`;
  element.style.color = inkOn(colour);
  return element;
}

function heatLegend({ low, high, colour }, state) {
  const ends = state.heat === "ra"
    ? ["known", "forgotten"] : ["better forgotten than before", "came back"];
  const steps = [0, 0.25, 0.5, 0.75, 1].map((share) => low + share * (high - low));
  return h("div", { class: "ramp" }, h("span", null, ends[0]),
    h("span", { class: "steps", "aria-hidden": "true" },
      steps.map((step) => coloured(h("span", null, number(step, 2)), colour(step)))),
    h("span", null, ends[1]));
}
