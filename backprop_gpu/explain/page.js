"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const L = D.sizes.length - 1, LAST = D.places.length - 1;
const $ = id => document.getElementById(id);
const step = Object.fromEntries(D.steps.map(s => [s.name, s]));
const state = { place: LAST, m: D.m, cut: D.cut, node: `dA${L}`, shown: null };

// -- elements ---------------------------------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const svg = make.svg.has(tag), e = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) if (v !== null && v !== false) e.setAttribute(k, v === true ? "" : v);
  e.append(...children.filter(c => c !== null).map(c => c instanceof Node ? c : String(c)));
  return e;
}
make.svg = new Set(["g", "rect", "path", "text", "defs", "marker", "pattern", "tspan"]);
const fill = (e, ...children) => e.replaceChildren(...children.filter(c => c !== null));

function number(x) {
  const a = Math.abs(x);
  const text = Number.isInteger(x) && a < 1e5 ? String(x) : a >= 1e5 || a < 5e-5 ? x.toExponential(1) : x.toFixed(a >= 100 ? 1 : 4);
  return text.replace(/-/g, "−");
}
const close = (a, b) => Math.abs(a - b) <= 2e-5 * Math.max(Math.abs(a), Math.abs(b), 1e-12);
const tiny = x => x < 1e-12 ? "nothing but roundings" : `${x < 0.1 ? (100 * x).toPrecision(2) : (100 * x).toFixed(0)}%`;

// -- what a tensor is at the chosen place of the 1/m -----------------------------------------------------------------

const batch = () => D.batches[state.m];
const isParameter = name => /^d[Wb]/.test(name);
const isBackward = name => name[0] === "d";
const layer = name => Number(name.match(/\d+$/)[0]);
const placeOf = name => D.places.indexOf(name);
/** Whether a backward tensor has the 1/m in it: dW and db always do in the end. */
const carries = name => isParameter(name) || placeOf(name) >= state.place;
/** Whether the 1/m is multiplied in at this tensor: dW and db do it themselves where their dZ has none. */
const entersAt = name => isParameter(name) ? !carries(`dZ${layer(name)}`) : placeOf(name) === state.place;
const values = name => isBackward(name) ? batch()[carries(name) && !(isParameter(name) && entersAt(name)) ? "early" : "late"][name] : batch().forward[name];
const placeLabel = at => at === LAST ? "dW, db (late)" : at === 0 ? "dAL (early)" : D.places[at];
const title = name => name === `dA${L}` ? `dA${L} = dAL` : name === `A${L}` ? `A${L} = AL` : name === "A0" ? "A0 = X" : name;

function shape(name) {
  if (name === "J") return [1, 1];
  if (name === "L") return [1, state.m];
  const l = layer(name), n = D.sizes[l];
  return /W/.test(name) ? [n, D.sizes[l - 1]] : /b/.test(name) ? [n, 1] : [n, state.m];
}
const shapeText = name => shape(name).join(" × ");

function matrix(name, given) {
  const v = given || values(name), [rows, columns] = shape(name);
  const body = v.map(row => make("tr", {}, ...row.map(x => make("td", {}, number(x))), row.length < columns ? make("td", {}, "…") : null));
  const more = [v.length < rows ? `${rows - v.length} more rows` : "", v[0].length < columns ? `${columns - v[0].length} more columns` : ""].filter(t => t);
  return make("div", { class: "scroll" }, make("table", { class: "matrix", "data-tensor": name }, make("tbody", {}, ...body)), more.length ? make("p", { class: "more" }, `and ${more.join(", ")}`) : null);
}

// -- 1: the batch -----------------------------------------------------------------------------------------------------

function drawBatch() {
  const f = batch().forward, m = state.m, heads = [...Array(m).keys()];
  const row = (label, v, cls) => make("tr", { class: cls || null }, make("th", { scope: "row" }, label), ...v.slice(0, m).map(x => make("td", {}, number(x))));
  const many = n => n > 1 ? k => ` [${k + 1}]` : () => "";
  const all = (label, v, n) => {
    const few = n > 5 ? v.slice(0, 4) : v;
    return [...few.map((r, k) => row(label === "input X" && D.features.length ? D.features[k] : label + many(n)(k), r)), few.length < n ? make("tr", {}, make("th", { scope: "row" }, `… ${n - few.length} more`)) : null];
  };
  fill($("batch-table"),
    make("thead", {}, make("tr", {}, make("td", {}), ...heads.map(i => make("th", { scope: "col" }, `example ${i + 1}`)))),
    make("tbody", {}, ...[...all("input X", f.A0, D.sizes[0]), ...all("target Y", D.Y, D.sizes[L]), ...all("prediction AL", f[`A${L}`], D.sizes[L]), row("loss L", f.L[0], "strong")].filter(r => r)));
  const few = f.L[0].slice(0, 6).map(number), rest = m > 6 ? [" + …"] : [];
  fill($("mean-line"), `J = ${m > 1 ? `(1/${m}) (` : ""}${few.join(" + ")}${rest.join("")}${m > 1 ? ")" : ""} = `, make("strong", { id: "J" }, number(f.J[0][0])));
}

// -- 2: the graph -----------------------------------------------------------------------------------------------------

const X = { left: 54, middle: 188, right: 346 }, PITCH = 66, TOP = 30, HALF = 51, UP = 21;
const rowOf = name => name === "L" ? 2 * L + 1 : name === "J" ? 2 * L + 2 : /Z/.test(name) || isParameter(name) ? 2 * layer(name) - 1 : 2 * layer(name);
function where(name) {
  const y = TOP + PITCH * rowOf(name);
  if (isParameter(name)) return [X.middle, y + (name[1] === "W" ? -18 : 18)];
  return [isBackward(name) ? X.right : X.left, y];
}

function edge(path, name) {
  return make("path", { d: path, class: `edge${name && carries(name) ? " has" : ""}`, "marker-end": "url(#arrow)" });
}
function chipAt(x, y) {
  return make("g", { class: "enter" }, make("rect", { x: x - 20, y: y - 10, width: 40, height: 20, rx: 10 }), make("text", { x, y: y + 4 }, "×1/m"));
}

function drawGraph() {
  const parts = [], chips = [], h = TOP + PITCH * (2 * L + 2) + 34;
  for (const s of D.steps) {
    const [x, y] = where(s.name);
    if (s.name === "A0") continue;
    if (!isBackward(s.name)) {
      parts.push(edge(`M${x} ${y - PITCH + UP} V${y - UP - 6}`));
      if (s.name[0] === "Z") parts.push(make("text", { x: x + 8, y: y - PITCH / 2 + 3, class: "side" }, `W${layer(s.name)}, b${layer(s.name)}`));
    } else if (isParameter(s.name)) {
      const z = where(`dZ${layer(s.name)}`), a = where(`A${layer(s.name) - 1}`);
      parts.push(edge(`M${z[0] - HALF} ${z[1]} L${x + 47 + 5} ${y}`, s.name));
      if (s.name[1] === "W") parts.push(edge(`M${a[0] + 30} ${a[1] + UP} L${x - 47 - 4} ${y - 4}`));
      if (entersAt(s.name)) chips.push(chipAt((z[0] - HALF + x + 47) / 2 + 2, (2 * y + z[1]) / 3));
    } else if (s.name === `dA${L}`) {
      const j = where("J");
      parts.push(edge(`M${j[0] + HALF} ${j[1]} H${x - 12} Q${x} ${j[1]} ${x} ${j[1] - 12} V${y + UP + 6}`, s.name));
      if (entersAt(s.name)) chips.push(chipAt(x, y + PITCH / 2 + 4));
    } else {
      parts.push(edge(`M${x} ${y + PITCH - UP} V${y + UP + 6}`, s.name));
      if (s.name[1] === "A") parts.push(make("text", { x: x + 12, y: y + PITCH / 2 + 4, class: "side" }, `W${layer(s.name) + 1}ᵀ`));
      if (entersAt(s.name)) chips.push(chipAt(x - (s.name[1] === "A" ? 24 : 0), y + PITCH / 2 + 1));
    }
  }
  for (const s of D.steps) parts.push(node(s.name));
  const svg = $("graph");
  svg.setAttribute("viewBox", `0 0 400 ${h}`);
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.node : null;
  fill(svg, defs(), ...parts, ...chips);
  if (focused) svg.querySelector(`[data-node="${focused}"]`).focus();
}

function defs() {
  return make("defs", {},
    make("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 5, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto" }, make("path", { d: "M0 0L8 4L0 8z", class: "head" })),
    make("pattern", { id: "hatch", width: 7, height: 7, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, make("rect", { width: 7, height: 7, class: "hatch-ground" }), make("rect", { width: 2, height: 7, class: "hatch-line" })));
}

function node(name) {
  const [x, y] = where(name), p = isParameter(name), w = p ? 47 : HALF, u = p ? 15 : UP;
  const has = isBackward(name) && carries(name), kind = !isBackward(name) ? "forward" : has ? "has" : "no";
  const says = isBackward(name) ? (has ? "has 1/m" : "no 1/m") : "";
  const short = name === `dA${L}` ? "dAL" : name === `A${L}` ? "AL" : name === "A0" ? "X" : name;
  const lines = p ? [make("text", { x, y: y + 4, class: "name" }, short, make("tspan", { class: "small" }, ` ${shapeText(name)}`))]
    : [make("text", { x, y: y - 2, class: "name" }, short), make("text", { x, y: y + 13, class: "small" }, isBackward(name) ? `${shapeText(name)}, ${says}` : name === "J" ? number(batch().forward.J[0][0]) : shapeText(name))];
  const g = make("g", { class: `node ${kind}${name === current() ? " chosen" : ""}`, tabindex: 0, role: "button", "data-node": name, "aria-label": `${title(name)}, ${shapeText(name)}${says ? `, ${says}` : ""}` },
    make("rect", { x: x - w, y: y - u, width: 2 * w, height: 2 * u, rx: 7, class: "box" }), ...lines);
  g.addEventListener("pointerenter", () => look(name));
  g.addEventListener("focus", () => look(name));
  g.addEventListener("click", () => look(name));
  return g;
}

const current = () => state.node;
function look(name) {
  if (state.node === name && $("detail").childElementCount) return;
  state.node = name;
  for (const g of $("graph").querySelectorAll(".node")) g.classList.toggle("chosen", g.dataset.node === name);
  drawDetail();
}

function factorText(name) {
  if (!isBackward(name)) return name === "J" ? "Here the 1/m comes from." : "Forward: no 1/m before J.";
  if (isParameter(name)) return entersAt(name) ? "The 1/m is multiplied in here. The number is the same wherever it enters." : `Its dZ${layer(name)} has the 1/m already. The number is the same wherever it enters.`;
  if (entersAt(name)) return `The 1/m is multiplied in here: each number is 1/${state.m} of dL/d${name.slice(1)}.`;
  return carries(name) ? `Has the 1/m from above: a derivative of J, 1/${state.m} of that of L.` : `No 1/m: a derivative of the loss L, ${state.m} times that of J.`;
}

function drawDetail() {
  const s = step[state.node];
  fill($("detail"),
    make("h3", {}, title(s.name), make("span", { class: "shape" }, s.shape.includes("n_") ? `${s.shape.replace(/_(\d+)/g, (_, d) => "₀₁₂₃₄₅₆₇₈₉"[d])} = ${shapeText(s.name)}` : shapeText(s.name))),
    make("p", { class: "formula" }, isBackward(s.name) && entersAt(s.name) ? s.with_m : s.formula),
    matrix(s.name),
    make("p", { class: "factor" }, factorText(s.name)),
    make("p", {}, s.meaning),
    s.source ? make("p", { class: "source" }, make("span", {}, `backprop_gpu/${s.source}`), make("code", {}, s.code)) : null);
}

function drawChanges() {
  const chain = D.places.slice(0, LAST), has = chain.filter(carries), not = chain.filter(n => !carries(n));
  const list = names => names.map(n => n === `dA${L}` ? "dAL" : n).join(", ");
  fill($("changes"),
    make("strong", {}, `With the 1/m at ${placeLabel(state.place)}: `),
    has.length ? `${list(has)} ${has.length > 1 ? "have" : "has"} it (derivatives of J)` : "no dA and no dZ has it",
    not.length ? `; ${list(not)} ${not.length > 1 ? "do" : "does"} not (derivatives of L, ${state.m} times as large). ` : "; all are derivatives of J. ",
    make("strong", {}, "Every dW and db stays what it was"),
    `: over all ${LAST + 1} places of the slider they differ by `, make("span", { id: "apart" }, tiny(batch().places_apart)), ".");
}

// -- 3: every step ----------------------------------------------------------------------------------------------------

function drawSteps() {
  const rows = D.steps.map(s => {
    const back = isBackward(s.name), ratio = batch().ratio[s.name];
    const pair = back ? [[isParameter(s.name) ? "late" : "late, of L", s.name[1] === "W" || s.name[1] === "b" ? s.with_m : s.formula, batch().late[s.name]], [isParameter(s.name) ? "early, dZ has the 1/m" : "early, of J", s.name === `dA${L}` ? s.with_m : s.formula, batch().early[s.name]]] : [["", s.formula, values(s.name)]];
    return make("article", { class: `step${back ? " back" : ""}`, "data-step": s.name },
      make("h3", {}, title(s.name), make("span", { class: "shape" }, shapeText(s.name)), back ? make("span", { class: "ratio" }, ratio === null ? "all 0" : `late / early = ${close(ratio, 1) ? "1" : close(ratio, state.m) ? `m = ${state.m}` : number(ratio)}`) : null),
      make("div", { class: "pair" }, ...pair.map(([label, formula, v]) => make("div", { "data-ledger": label.split(",")[0] || "forward" }, label ? make("span", { class: "label" }, label) : null, make("p", { class: "formula" }, formula), matrix(s.name, v)))));
  });
  const first = D.steps.findIndex(s => isBackward(s.name));
  fill($("steps"), make("h3", { class: "way" }, "Forward"), ...rows.slice(0, first), make("h3", { class: "way" }, "Backward"), ...rows.slice(first));
}

// -- 4: examples and mean ---------------------------------------------------------------------------------------------

function drawMean() {
  const m = state.m, heads = [...Array(m).keys()].map(i => make("th", { scope: "col" }, make("span", {}, `dL${[..."₀₁₂₃₄₅₆₇₈₉"][i + 1] || `(${i + 1})`}`)));
  const rows = D.listed.rows.map(r => make("tr", { "data-parameter": r.name }, make("th", { scope: "row" }, r.name),
    ...r.examples.slice(0, m).map(x => make("td", { class: "example" }, number(x))),
    ...["mean", "late", "early", "step"].map(k => make("td", { class: `strong ${k}` }, number(r[k][m - 1])))));
  fill($("mean-table"),
    make("thead", {}, make("tr", {}, make("td", {}), ...heads, ...["mean of these", "late", "early", "complex step"].map(t => make("th", { scope: "col", class: "strong" }, t)))),
    make("tbody", {}, ...rows));
  const total = D.listed.total, left = total - rows.length, check = batch().check;
  fill($("check-line"), left ? `${left} more parameters are not listed. ` : "", make("strong", {}, `All ${total} parameters, checked by the complex step: `),
    make("span", { id: "check" }, check < 1e-12 ? "✓ right" : "✗ wrong"), `, at every place of the 1/m (largest difference ${check.toExponential(1).replace(/-/g, "−")} of the terms' size).`);
}

// -- 5: parts ---------------------------------------------------------------------------------------------------------

const fraction = w => { for (let d = 1; d <= 64; d++) { const n = w * d; if (n > 0.5 && Math.abs(n - Math.round(n)) < 1e-3) return d === 1 ? String(Math.round(n)) : `${Math.round(n)}/${d}`; } return number(w); };

function drawParts() {
  const m = state.m, k = state.cut, one = m < 2;
  $("cut-none").hidden = !one;
  $("parts").querySelector("form").hidden = one;
  if (one) return fill($("ways"));
  const even = 2 * k === m, a = `m₁ = ${k}`, b = `m₂ = ${m - k}`;
  const words = [
    ["Each part divides by m, then add", `Micro-batches: divide every loss by m = ${m}, let the gradients add up. Ranks: the same, then all-reduce with a sum.`, `(Σ₁ + Σ₂) with Σₖ over m = ${m}`],
    ["Each part divides by m/K, then average", `For ranks whose all-reduce averages over K = 2: multiply each local mean by K·mₖ/m, which is to divide its sum by m/K = ${fraction(m / 2)}.`, `½ (Σ₁ + Σ₂) with Σₖ over m/2`],
    ["Each part takes its own mean, then average", `What averaging ranks, or equal weights for micro-batches, do if nobody thinks of it. Right only for parts of one size.`, `½ (mean₁ + mean₂), ${a}, ${b}`],
    ["Each part takes its own mean, then add", "Micro-batches whose losses are means, added up: K times too large for parts of one size.", `mean₁ + mean₂, ${a}, ${b}`],
  ];
  const ways = batch().splits[k], most = Math.max(...ways.flatMap(w => w.weights));
  const zs = `db${L}${D.sizes[L] > 1 ? "[1]" : ""}`;
  fill($("ways"), ...ways.map((w, i) => {
    const right = w.error < 1e-12;
    const verdict = right ? (i < 2 ? "✓ right" : "✓ right here, as the parts are even") : "✗ wrong";
    const bars = w.weights.map((x, j) => make("div", { class: `weight ${j < k ? "first" : "second"}` }, make("span", { class: "column" }, make("i", { style: `height:${(100 * x / most).toFixed(1)}%` })), make("b", {}, fraction(x))));
    return make("article", { class: `card way ${right ? "right" : "wrong"}`, "data-way": i },
      make("h3", {}, words[i][0], make("span", { class: "verdict" }, verdict)),
      make("div", { class: "inner" },
        make("div", {}, make("p", {}, words[i][1]), make("p", { class: "formula" }, words[i][2]),
          make("p", { class: "numbers" }, `${zs} = `, make("strong", { class: "got" }, number(w.db)), right ? ", that of J" : `; that of J is ${number(ways[0].db)}`, make("br"), "largest error of a parameter: ", make("span", { class: "error" }, tiny(w.error)))),
        make("figure", {}, make("div", { class: "weights" }, ...bars.slice(0, k), make("div", { class: "cutline" }), ...bars.slice(k)), make("figcaption", {}, "how much each example counts"))));
  }));
}

// -- all --------------------------------------------------------------------------------------------------------------

function slider(id, value, max, text, disabled) {
  const e = $(id);
  e.max = max;
  e.value = value;
  e.disabled = disabled || false;
  e.setAttribute("aria-valuetext", text);
  $(`${id}-out`).textContent = text;
}

function drawSliders() {
  state.cut = Math.min(Math.max(state.cut, 1), Math.max(1, state.m - 1));
  slider("place", state.place, LAST, placeLabel(state.place));
  slider("m", state.m, D.M, `m = ${state.m}`, D.M < 2);
  slider("cut", state.cut, Math.max(1, state.m - 1), `${state.cut}: ${state.cut} + ${state.m - state.cut}`, state.m < 3);
  $("ratio-m").textContent = `m = ${state.m}`;
  $("ratio-1m").textContent = `1/m = ${fraction(1 / state.m)}`;
}

const drawPlace = () => { drawSliders(); drawGraph(); drawDetail(); drawChanges(); };
const drawAll = () => { drawPlace(); drawBatch(); drawSteps(); drawMean(); drawParts(); };

for (const e of document.querySelectorAll(D.loss === "binary_cross_entropy" ? ".others" : ".course")) e.hidden = true;
$("dal-formula").textContent = step[`dA${L}`].formula;
$("place").addEventListener("input", e => { state.place = Number(e.target.value); drawPlace(); });
$("m").addEventListener("input", e => { state.m = Number(e.target.value); drawAll(); });
$("cut").addEventListener("input", e => { state.cut = Number(e.target.value); drawSliders(); drawParts(); });
for (const form of document.forms) form.addEventListener("submit", e => e.preventDefault());
if (D.notes.length) fill($("notes"), ...D.notes.map(t => make("p", { class: "note" }, t)));
drawAll();
