// The learning curve of the head, and what the next labels are worth.

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [320, 150, 42, 28, 10];

/** points of accuracy, as "1.2" or "0.4" */
const points = (value) => value.toFixed(value < 9.95 ? 1 : 0);

function svg(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** In words: where the curve stands, and what its extrapolation promises. */
function inWords({ labels, accuracy, low, high, next }, n) {
  const last = labels.length - 1;
  const percent = (value) => `${(100 * value).toFixed(0)} %`;
  const now =
    `Refitted on ${n} labels, the head is right on ${percent(accuracy[last])} (${percent(low[last])} to ${percent(high[last])}) ` +
    `of the labelled candidates of other sky objects; without your labels, on ${percent(accuracy[0])}. ` +
    "These are the candidates that were asked about, harder than the night as a whole.";
  if (!next) return `${now} More labels must come before their worth can be foretold.`;
  const worth = `the next ${next.labels} labels are worth about ${points(next.points)} points (${points(next.low)} to ${points(next.high)})`;
  return `${now} ${next.high < 1 ? "Enough: " : next.low >= 1 ? "Go on: " : "As far as can be judged, "}${worth}.`;
}

export function showCurve(box, words, { curve, fitted_on: n }) {
  box.toggleAttribute("hidden", !curve);
  if (!curve) {
    words.textContent = "After each ten labels the head is refitted.";
    return;
  }
  const text = inWords(curve, n);
  words.textContent = text;
  box.setAttribute("aria-label", `Learning curve. ${text}`);
  const floor = Math.floor(20 * Math.min(...curve.low)) / 20;
  const x = (label) => LEFT + (Math.sqrt(label) / Math.sqrt(curve.labels.at(-1))) * (WIDTH - LEFT - 12);
  const y = (value) => HEIGHT - BOTTOM - ((value - floor) / (1 - floor || 1)) * (HEIGHT - BOTTOM - TOP);
  const line = curve.labels.map((label, k) => `${x(label)},${y(curve.accuracy[k])}`).join(" ");
  box.replaceChildren(
    ...[floor, (1 + floor) / 2, 1].flatMap((value) => [
      svg("line", { x1: LEFT, x2: WIDTH - 8, y1: y(value), y2: y(value), class: "rule" }),
      svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, `${(100 * value).toFixed(0)} %`),
    ]),
    ...curve.labels.flatMap((label, k) => [
      svg("line", { x1: x(label), x2: x(label), y1: y(curve.low[k]), y2: y(curve.high[k]), class: "interval" }),
      svg("circle", { cx: x(label), cy: y(curve.accuracy[k]), r: 3.5, class: "point" }),
      svg("text", { x: x(label), y: HEIGHT - 10, "text-anchor": "middle" }, label),
    ]),
    svg("polyline", { points: line, class: "line" }),
  );
}
