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
    .map(({ row, figures }) => ({
      row, figures, x: row.kept[row.worst_utility || 0], y: figures.core,
    }))
    .filter((point) => isFigure(point.x) && isFigure(point.y));
  if (!points.length) return h("p", { class: "empty" }, "No row here has both figures.");
  const small = width < 560;
  const size = { width, height: small ? 340 : 430, left: 52, right: 16, top: 14, bottom: 46 };
  const x = axisOf(around(reach(points.map((point) => point.x))), size.left, size.width - size.right);
  const y = axisOf(around(reach(points.map((point) => point.y))), size.height - size.bottom, size.top);
  const chart = svg("svg", {
    width: size.width, height: size.height, viewBox: `0 0 ${size.width} ${size.height}`,
    role: "group", "aria-label": `${titled("kept")} against ${DATA.labels.core} in ${state.metric}, ${points.length} rows`,
  });
  chart.append(...frame(size, x, y, [`${DATA.labels.kept} (worst metric, chance-corrected)`,
    `${DATA.labels.core}, ${state.metric}`]));
  chart.append(...guide(size, y, boardOf(state).metrics[metricOf(state)].chance / 1000));
  const placed = points.map((point) => ({
    ...point, px: x.at(point.x[0] / 1000), py: y.at(point.y[0] / 1000),
  }));
  for (const point of placed) chart.append(bars(point, x, y));
  chart.append(svg("g", { "aria-hidden": "true" }, ...pointLabels(placed, size)));
  for (const point of placed) chart.append(pointLink(point, state));
  return chart;
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

/** Names beside the points, where there is room for them. */
function pointLabels(points, size) {
  const taken = points.map(({ px, py }) => [px - 8, py - 8, px + 8, py + 8]);
  const apart = (a, b) => a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
  const found = [];
  for (const { row, px, py } of points) {
    const text = row.title.length > 26 ? `${row.title.slice(0, 25)}…` : row.title;
    const wide = text.length * 6.6 + 4;
    const places = [
      [px + 11, py - 4, "start"], [px - 11, py - 4, "end"], [px + 11, py + 14, "start"],
      [px - 11, py + 14, "end"], [px, py - 13, "middle"], [px, py + 22, "middle"],
      [px + 11, py - 18, "start"], [px - 11, py - 18, "end"],
    ];
    for (const [x, y, anchor] of places) {
      const left = anchor === "start" ? x : anchor === "end" ? x - wide : x - wide / 2;
      const box = [left, y - 11, left + wide, y + 4];
      const inside = box[0] >= size.left && box[2] <= size.width - 2 && box[1] >= 0 &&
        box[3] <= size.height - size.bottom;
      if (inside && taken.every((other) => apart(box, other))) {
        taken.push(box);
        found.push(label(x, y, text, { class: "name", "text-anchor": anchor }));
        break;
      }
    }
  }
  return found;
}

function tierLegend(rows) {
  const tiers = FILTER_TIERS.filter((tier) => rows.some((row) => tierOf(row) === tier));
  return h("ul", { class: "legend" }, tiers.map((tier) => h("li", null,
    svg("svg", { viewBox: "0 0 16 16", class: "badge-mark", "aria-hidden": "true" },
      mark(tier, 8, 8, 5)),
    h("span", null, h("strong", null, TIERS[tier][0]), `: ${TIERS[tier][1]}`))));
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
  const size = { width, height: 190, left: 40, right: 8, top: 8, bottom: 34 };
  const last = attack.steps[attack.steps.length - 1];
  const x = { ends: [0, last], at: scale([0, last], size.left, size.width - size.right) };
  const y = axisOf(ends, size.height - size.bottom, size.top);
  y.ticks = ticks(...ends, 4);
  const picture = svg("svg", {
    width: size.width, height: size.height, viewBox: `0 0 ${size.width} ${size.height}`,
    role: "img", "aria-label": `${state.curve === "forget" ? state.metric : titled("recovery")} under ${attack.name}, ` +
      `${rows.length} rows; the numbers are in the table below`,
  });
  const few = attack.levels.length || attack.steps.length <= 6;
  x.ticks = few ? attack.steps : ticks(0, last, 4).filter(Number.isInteger);
  const named = attack.levels.length ? "level" : "optimizer step";
  picture.append(...curveFrame(size, x, y, named));
  curves.forEach((points, k) => {
    if (points) picture.append(curve(points.map((p) => [attack.steps[p[0]], ...p.slice(1)]), k, x, y));
  });
  return picture;
}

function curveFrame(size, x, y, named) {
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
      { class: "tick", "text-anchor": value === x.ends[1] ? "end" : "middle" })),
    label((size.left + size.width - size.right) / 2, size.height - 4, named,
      { class: "axis", "text-anchor": "middle" }),
  ];
}

function curve(points, k, x, y) {
  const at = (value, place) => `${x.at(value).toFixed(1)},${y.at(place).toFixed(1)}`;
  const banded = points.filter((point) => point[2] !== null && point[3] !== null);
  const band = [...banded.map((p) => at(p[0], p[3])), ...banded.reverse().map((p) => at(p[0], p[2]))];
  return svg("g", { class: `curve c${k}` },
    svg("polygon", { class: "band", points: band.join(" ") }),
    svg("polyline", { class: "line", points: points.map((p) => at(p[0], p[1])).join(" ") }),
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
  return h("ul", { class: "legend curves" }, rows.map((row, k) => h("li", null,
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

/** Dark blue: stayed forgotten; yellow: known as before. Cividis: alike for most kinds of sight. */
function heatColour(known) {
  const place = Math.min(1, Math.max(0, known)) * (RAMP.length - 1);
  const k = Math.min(RAMP.length - 2, Math.floor(place));
  return RAMP[k].map((part, j) => Math.round(part + (RAMP[k + 1][j] - part) * (place - k)));
}

/** Black or white, whichever is read more easily (WCAG 2 relative luminance). */
function inkOn(colour) {
  const [r, g, b] = colour.map((part) => {
    const c = part / 255;
    return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

function heatFigure(part, state) {
  if (!part) return null;
  if (state.heat === "ra") return part[0];
  return isFigure(part[5]) ? part[5].slice(-3) : part[5];
}

function heatmap(rows, state) {
  const board = boardOf(state);
  if (!rows.length) return h("p", { class: "empty" }, "No row passes the filters.");
  const head = h("tr", null, h("th", { scope: "col" }, "method"),
    board.attacks.map((attack) => h("th", { scope: "col" }, attack.name,
      attack.core ? "" : h("span", { class: "soft" }, "*"))));
  const body = rows.map((row) => h("tr", null, h("th", { scope: "row" }, row.title),
    figuresOf(row, state).attacks.map((part) => heatCell(heatFigure(part, state), state))));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of methods by attacks" },
    h("table", { class: "heat" }, h("thead", null, head), h("tbody", null, body)));
}

function heatCell(figure, state) {
  if (!isFigure(figure)) {
    const why = figure === null || figure === undefined ? "not run" : brief(words(figure));
    return h("td", { class: "none" }, why);
  }
  const cell = h("td", { title: words(figure) }, number(figure[0]));
  const colour = heatColour(state.heat === "ra" ? 1 - figure[0] / 1000 : figure[0] / 1000);
  cell.style.backgroundColor = `rgb(${colour.join(",")})`;
  cell.style.color = inkOn(colour);
  return cell;
}

function heatLegend(state) {
  const steps = [0, 0.25, 0.5, 0.75, 1];
  const shown = state.heat === "ra" ? [1, 0.75, 0.5, 0.25, 0] : steps;
  const ends = state.heat === "ra"
    ? ["RA 1: forgotten", "RA 0: known"] : ["0: stayed forgotten", "1: known as before"];
  return h("div", { class: "ramp" }, h("span", null, ends[0]),
    h("span", { class: "steps", "aria-hidden": "true" }, steps.map((step, k) => {
      const colour = heatColour(step);
      const box = h("span", null, tick(shown[k]));
      box.style.backgroundColor = `rgb(${colour.join(",")})`;
      box.style.color = inkOn(colour);
      return box;
    })), h("span", null, ends[1]));
}
