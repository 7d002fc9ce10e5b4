// The light curve of a candidate, where its packet has one: detections, limits, forced photometry by filter.

import { get } from "./server.js";

const [HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [140, 38, 10, 10, 30];
const NARROW = 280;
const KEPT = 200;
const FILTERS = ["u", "g", "r", "i", "z", "y"];
// A filter has a shape, too: colours alone do not tell filters apart for everybody.
const SHAPES = [
  "M-3.5,0a3.5,3.5 0 1 0 7,0a3.5,3.5 0 1 0 -7,0", "M-3.2,-3.2h6.4v6.4h-6.4z", "M0,-4.5L4.5,0L0,4.5L-4.5,0z",
  "M0,-4.2L4.2,3.4H-4.2z", "M-4,-1.3h2.7v-2.7h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7z", "M-4.5,-1.8h9v3.6h-9z",
];
const LIMIT = "M-3.5,-2.5H3.5L0,3.5z";
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
const kept = new Map(); // row -> promise of measurements

/** Measurements in the packet of a candidate; none where they cannot be had. */
export function measurements(row) {
  if (!kept.has(row)) kept.set(row, get(`api/history?row=${row}`).catch(() => (kept.delete(row), [])));
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return kept.get(row);
}

function svg(tag, attributes, ...content) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...content);
  return element;
}

/** Round numbers between two limits, three to six of them. */
function ticks(low, high) {
  const power = 10 ** Math.floor(Math.log10((high - low) / 3));
  const step = [5, 2, 1].map((n) => n * power).find((one) => (high - low) / one >= 3) ?? power;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, k) => Number(((first + k) * step).toPrecision(6)));
}

/** Colour and shape of a filter: its own for ugrizy, else the next shape in the colour of the text. */
function look(band, bands) {
  const letter = band.slice(-1).toLowerCase(), known = band.length === 1 && band === letter && FILTERS.includes(letter);
  const k = known ? FILTERS.indexOf(letter) : bands.indexOf(band);
  return { colour: known ? `band-${letter}` : "band", shape: SHAPES[k % SHAPES.length] };
}

function legend(points, bands) {
  const some = (what, of) => points.some((point) => what(point) && point.band === of);
  const detected = (point) => point.magnitude !== null;
  const entry = (text, colour, shape, kind) => {
    const item = document.createElement("span");
    item.append(svg("svg", { viewBox: "-6 -6 12 12", class: colour, "aria-hidden": "true" }, svg("path", { d: shape, class: `mark ${kind}` })), text);
    return item;
  };
  const items = bands
    .filter((band) => some(() => true, band))
    .map((band) => entry(band || "filter not given", look(band, bands).colour, look(band, bands).shape, ""));
  const any = look(bands[0], bands);
  if (points.some((point) => detected(point) && point.fainter)) items.push(entry("fainter than the reference", "band", any.shape, "open"));
  if (points.some((point) => !detected(point))) items.push(entry("upper limit", "band", LIMIT, "limit"));
  return items;
}

function plot(points, bands, width) {
  const now = points.find((point) => point.now)?.mjd ?? points.at(-1).mjd;
  const values = points.map((point) => point.magnitude ?? point.limit);
  const errors = points.map((point) => point.error ?? 0);
  const faint = Math.max(...values.map((v, k) => v + errors[k])) + 0.2, bright = Math.min(...values.map((v, k) => v - errors[k])) - 0.2;
  const [first, last] = [points[0].mjd, points.at(-1).mjd], room = Math.max(0.02, 0.04 * (last - first));
  const x = (mjd) => LEFT + ((mjd - first + room) / (last - first + 2 * room)) * (width - LEFT - RIGHT);
  const y = (mag) => TOP + ((mag - bright) / (faint - bright)) * (HEIGHT - TOP - BOTTOM);
  const marks = points.map((point) => {
    const { colour, shape } = look(point.band, bands), value = point.magnitude ?? point.limit, detected = point.magnitude !== null;
    const days = (point.mjd - now).toFixed(2).replace("-", "−");
    const text = `MJD ${point.mjd.toFixed(3)} (${point.now ? "this candidate" : `${days} d`}), ${point.band ? `${point.band} ` : ""}` +
      (detected ? `${value.toFixed(2)}${point.error ? ` ± ${point.error.toFixed(2)}` : ""} mag` : `> ${value.toFixed(2)} mag`) +
      `${point.fainter ? ", fainter than the reference" : ""}${point.forced ? ", forced photometry" : ""}`;
    const group = svg("g", { class: colour, transform: `translate(${x(point.mjd).toFixed(1)},${y(value).toFixed(1)})` }, svg("title", {}, text));
    if (detected && point.error) {
      const half = y(value + point.error) - y(value);
      group.append(svg("line", { y1: -half, y2: half, stroke: "currentColor" }));
    }
    group.append(svg("path", { d: detected ? shape : LIMIT, class: `mark ${detected ? (point.fainter ? "open" : "") : "limit"}` }));
    return [detected, group];
  });
  const picture = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img" },
    ...ticks(bright, faint).flatMap((mag) => [
      svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(mag), y2: y(mag), class: "rule" }),
      svg("text", { x: LEFT - 6, y: y(mag) + 4, "text-anchor": "end" }, String(mag)),
    ]),
    ...ticks(first - now, last - now + 1e-6).map((day) =>
      svg("text", { x: x(day + now), y: HEIGHT - 16, "text-anchor": "middle" }, String(day).replace("-", "−"))),
    svg("text", { x: width - RIGHT, y: HEIGHT - 2, "text-anchor": "end" }, `days from MJD ${now.toFixed(3)}`),
    svg("text", { x: 0, y: HEIGHT - 2 }, "mag"),
    svg("line", { x1: x(now), x2: x(now), y1: TOP, y2: HEIGHT - BOTTOM, class: "now" }),
    ...marks.toSorted((a, b) => a[0] - b[0]).map(([, group]) => group));
  const seen = points.filter((point) => point.magnitude !== null);
  picture.setAttribute("aria-label",
    `Light curve: ${plural(seen.length, "detection")} and ${plural(points.length - seen.length, "upper limit")} ` +
    `in ${plural(Math.ceil(last - first), "day")}` +
    (seen.length ? `, magnitudes ${Math.min(...seen.map((p) => p.magnitude)).toFixed(1)} to ${Math.max(...seen.map((p) => p.magnitude)).toFixed(1)}.` : "."));
  return picture;
}

/** Draw the light curve of a candidate into a figure, which is hidden where the packet has none. */
export async function showLightCurve(figure, row, current) {
  const points = await measurements(row);
  if (!current()) return;
  figure.hidden = !points.length;
  figure.parentElement.parentElement.classList.toggle("with-curve", points.length > 0);
  if (!points.length) return void figure.replaceChildren();
  const bands = [...new Set(points.map((point) => point.band))].sort((a, b) => FILTERS.indexOf(a) - FILTERS.indexOf(b));
  const caption = document.createElement("figcaption");
  caption.append(...legend(points, bands));
  figure.replaceChildren(plot(points, bands, Math.max(NARROW, figure.clientWidth)), caption);
}
