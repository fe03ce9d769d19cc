"use strict";
// Under the pointer, or moved by the arrow keys: a line in the chart, and the numbers of each curve beside it.
for (const svg of document.querySelectorAll("svg[data-values]")) {
  const { span: [left, right, low, high], x: label, curves } = JSON.parse(svg.dataset.values);
  const places = [...new Set(curves.flatMap(([, points]) => points.map(([x]) => x)))].sort((a, b) => a - b);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path"), out = document.createElement("p");
  line.setAttribute("class", "cursor");
  out.className = "readout";
  out.setAttribute("aria-live", "polite");
  svg.append(line);
  svg.after(out);
  let at = places.length - 1;
  const nearest = (points, x) => points.reduce((best, p) => Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best);
  const number = v => String(Number(v.toPrecision(4))).replace("-", "−");
  const show = i => {
    at = Math.max(0, Math.min(places.length - 1, i));
    const x = places[at], across = left + (right - left) * (x - low) / (high - low);
    line.setAttribute("d", `M${across} 12V192`);
    const said = curves.filter(([, points]) => points.length).map(([name, points]) => [name, nearest(points, x)]);
    out.textContent = `${label} ${number(x)}: ` + said.map(([name, p]) => `${name} ${number(p[1])}${p[0] === x ? "" : ` (at ${number(p[0])})`}`).join(", ");
  };
  svg.addEventListener("pointermove", e => {
    const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal.width;
    const x = low + ((e.clientX - box.left) / box.width * view - left) / (right - left) * (high - low);
    show(places.reduce((best, p, i) => Math.abs(p - x) < Math.abs(places[best] - x) ? i : best, 0));
  });
  svg.addEventListener("keydown", e => {
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: places.length - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    show(to);
  });
}
