// The page keeps its candidates as text and draws only the rows in sight: ten thousand scroll like ten.
const $ = (id) => document.getElementById(id), C = K.classes, sheet = $("sheet"), view = $("view");
const SIDE = 63, TILE = 64, CHANNELS = ["science", "reference", "difference"];
const R = [];
for (const text of document.querySelectorAll("script.part")) {
  const { sources, rows } = JSON.parse(text.textContent);
  for (const [id, source, p, q, facts] of rows) R.push({ id, source: sources[source], p, q, facts, order: R.length });
}
K.order.forEach((k, place) => (R[k].place = place));
const scored = (r) => r.p[0] !== null, best = (r) => (scored(r) ? r.p.indexOf(Math.max(...r.p)) : -1);
const bogus = C.indexOf("bogus");
const worth = (r) => (bogus < 0 ? Math.max(...r.p) : 1 - r.p[bogus]);
const ranking = R.filter(scored).sort((a, b) => worth(b) - worth(a));
const words = (r) => K.flags.filter(([bit]) => r.q & bit).map(([, text]) => text).join("; ");
const make = (kind, text = "", to) => {
  const e = document.createElement(kind);
  e.textContent = text;
  to?.append(e);
  return e;
};

// Marks outlive a reload of the page where the browser keeps them.
const place = `transientnet ${K.night}`, marks = new Map();
try { for (const [k, mark] of JSON.parse(localStorage.getItem(place) ?? "[]")) marks.set(k, mark); } catch { /* private window */ }
function mark(r, change) {
  const now = { label: "", note: "", ...marks.get(r.order), ...change };
  if (now.label || now.note) marks.set(r.order, now); else marks.delete(r.order);
  try { localStorage.setItem(place, JSON.stringify([...marks])); } catch { /* the marks last as long as the page */ }
  tell();
}
function tell() {
  $("yield").textContent = found();
  $("export").disabled = !marks.size;
  $("export").textContent = marks.size ? `Save ${marks.size} mark${marks.size > 1 ? "s" : ""}` : "Save marks";
}

/** What was found as far down the ranking as marks go, with Wilson's 95 % interval. */
function found() {
  let marked = 0, real = 0, rank = 0;
  if (bogus >= 0) ranking.forEach((r, i) => {
    const label = marks.get(r.order)?.label;
    if (label) { marked += 1; rank = i + 1; real += label !== C[bogus]; }
  });
  if (!marked) return "";
  const share = real / marked, z = 1.96 ** 2 / marked, middle = (share + z / 2) / (1 + z);
  const half = Math.sqrt(share * (1 - share) * z + z * z / 4) / (1 + z);
  const [p, low, high] = [share, middle - half, middle + half].map((x) => Math.round(100 * x));
  return `Of the best ${rank}, ${marked} marked: ${real} not bogus (${p} %, ${low}–${high}).`;
}

/** A table that `transientnet adapt --labels` reads: where the stamps are, and what they are. */
function save() {
  const kinds = new Map();
  for (const [k, { label, note }] of [...marks].sort((a, b) => a[0] - b[0])) {
    const r = R[k], row = { ...r.source, id: r.id, label, group: r.facts.group, ...r.facts.given, note };
    const kind = "science" in r.source ? "-files" : "";
    kinds.set(kind, [...(kinds.get(kind) ?? []), row]);
  }
  for (const [kind, rows] of kinds) {
    const names = [...new Set(rows.flatMap(Object.keys))].filter((n) => n !== "group" || rows.every((r) => r.group));
    const cell = (v) => (/[",\n\r]/.test((v = String(v ?? ""))) ? `"${v.replaceAll('"', '""')}"` : v);
    const text = [names, ...rows.map((row) => names.map((n) => row[n]))].map((line) => line.map(cell).join(",") + "\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(text, { type: "text/csv" }));
    link.download = `${K.name}-marks${kind}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }
}

// --- stamps ---------------------------------------------------------------------------------------------
// The pictures follow the facts in the file, the best first, and may still be on their way.
const pictures = document.getElementsByClassName("pictures");
const soon = () => new Promise((resolve) => setTimeout(resolve, 20));
async function pixels(r) {
  const part = Math.floor(r.place / K.part);
  // A part is whole once something stands behind it.
  while (!pictures[part]?.nextSibling && document.readyState === "loading") await soon();
  const text = pictures[part];
  return (text.found ??= text.textContent.slice(1, -1).split("\n"))[r.place % K.part].split(" ");
}
const loaded = new Map();
async function picture(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}
/** The three stamps side by side, each 63 of 64 pixels, missing ones painted. */
function tile(r) {
  let ready = loaded.get(r.order);
  if (!ready) {
    ready = (async () => {
      const [level, coded, missing] = await pixels(r);
      const canvas = document.createElement("canvas");
      canvas.width = 3 * TILE; canvas.height = TILE;
      const pen = canvas.getContext("2d");
      if (coded) pen.drawImage(await picture(`data:image/jpeg;base64,${K.heads[level]}${coded}`), 0, 0);
      if (missing) pen.drawImage(await picture(`data:image/png;base64,${missing}`), 0, 0);
      return canvas;
    })();
    loaded.set(r.order, ready);
    if (loaded.size > 600) loaded.delete(loaded.keys().next().value);
  }
  return ready;
}
function line(pen, colour, width, ...points) {
  pen.strokeStyle = colour; pen.lineWidth = width; pen.beginPath();
  points.forEach(([x, y], k) => (k ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.stroke();
}
/** One stamp into a square of `side` pixels at `left`. */
function stamp(pen, r, from, k, left, side) {
  pen.imageSmoothingEnabled = false;
  if (r.facts.absent?.includes(k)) {
    pen.fillStyle = "#ebebeb"; pen.fillRect(left, 0, side, side);
    line(pen, "#bebebe", side / 63, [left, 0], [left + side, side]);
    line(pen, "#bebebe", side / 63, [left + side, 0], [left, side]);
    return;
  }
  pen.drawImage(from, k * TILE, 0, SIDE, SIDE, left, 0, side, side);
  const one = side / SIDE, x = left + side / 2, y = side / 2, w = Math.max(1, 0.6 * one);
  line(pen, "#f0e442", w, [x + 7 * one, y], [x + 12 * one, y]);
  line(pen, "#f0e442", w, [x, y - 7 * one], [x, y - 12 * one]);
}
async function paint(canvas, r) {
  const from = await tile(r), pen = canvas.getContext("2d");
  CHANNELS.forEach((_, k) => stamp(pen, r, from, k, k * (SIDE + 2), SIDE));
}
/** A bar of a round number of arcseconds, and arrows to the north and east. */
function legend(pen, r, side) {
  const { across, north, east } = r.facts, yellow = "#f0e442";
  pen.font = `${side / 16}px system-ui, sans-serif`;
  const write = (text, x, y) => {
    pen.lineWidth = side / 80; pen.strokeStyle = "#000"; pen.strokeText(text, x, y);
    pen.fillStyle = yellow; pen.fillText(text, x, y);
  };
  if (across) {
    const power = 10 ** Math.floor(Math.log10(0.3 * across));
    const length = power * [5, 2, 1].find((step) => step * power <= 0.3 * across), x = 0.05 * side, y = 0.94 * side;
    for (const [colour, width] of [["#000", side / 50], [yellow, side / 100]])
      line(pen, colour, width, [x, y], [x + (length / across) * side, y]);
    write(`${+length.toPrecision(1)}″`, x, y - 0.03 * side);
  }
  if (north === undefined) return;
  pen.textAlign = "center"; pen.textBaseline = "middle";
  const x = 0.82 * side, y = 0.82 * side;
  for (const [name, angle] of [["N", north], ["E", east]]) {
    const dx = -Math.sin((angle * Math.PI) / 180), dy = -Math.cos((angle * Math.PI) / 180), reach = 0.1 * side;
    for (const [colour, width] of [["#000", side / 50], [yellow, side / 100]])
      line(pen, colour, width, [x, y], [x + reach * dx, y + reach * dy]);
    write(name, x + 1.45 * reach * dx, y + 1.45 * reach * dy);
  }
}

// --- the sheet ------------------------------------------------------------------------------------------
function option(select, value, text) { make("option", text, select).value = value; }
option($("sort"), "best", bogus < 0 ? "surest" : "least likely bogus");
C.forEach((c, i) => { option($("sort"), i, `P(${c})`); option($("label"), i, c); option($("marked"), c, c); });
for (const [bit, text] of K.flags) if (R.some((r) => r.q & bit)) option($("flag"), bit, text);
option($("label"), -1, "not scored");
option($("sort"), "id", "name");
option($("sort"), "order", "order of the night");
let shownRows = [], columns = 1, width = 0, height = 0, at = 0;
const cards = new Map();
function choose() {
  const sort = $("sort").value, label = $("label").value, flag = $("flag").value, marked = $("marked").value;
  const wanted = $("find").value.toLowerCase(), low = +$("low").value || 0, up = $("up").checked ? 1 : -1;
  const value = isNaN(+sort) ? worth : (r) => r.p[+sort];
  shownRows = R.filter((r) => {
    const given = marks.get(r.order)?.label;
    return (label === "" || best(r) === +label) && (flag === "" || (flag === "0" ? !r.q : r.q & +flag)) &&
      (marked === "" || (marked === "*" ? marks.has(r.order) : marked === "-" ? !marks.has(r.order) : given === marked)) &&
      (!wanted || `${r.id} ${Object.values(r.source).join(" ")}`.toLowerCase().includes(wanted)) &&
      (low <= 0 || (scored(r) && value(r) >= low));
  });
  if (sort === "id") shownRows.sort((a, b) => -up * a.id.localeCompare(b.id, undefined, { numeric: true }));
  else if (sort !== "order") shownRows.sort((a, b) => scored(b) - scored(a) || (scored(a) && up * (value(a) - value(b))));
  const all = R.length === 1 ? "1 candidate" : `${R.length} candidates`;
  $("count").textContent = `${shownRows.length} of ${all}: science, reference, difference. ` +
    (matchMedia("(pointer: coarse)").matches ? "Tap one to enlarge and mark it." : `Arrow keys move, Enter enlarges, ${C.map((c, i) => `${i + 1} ${c}`).join(", ")} marks, 0 clears.`);
  at = 0; scrollTo(0, 0); layout();
}
function layout() {
  const room = sheet.clientWidth;
  columns = Math.max(1, Math.floor(room / +$("size").value)); width = room / columns;
  height = Math.ceil(((width - 12) * 63) / 193) + 72;
  sheet.style.height = `${Math.ceil(shownRows.length / columns) * height}px`;
  for (const card of cards.values()) card.remove();
  cards.clear(); draw();
}
function draw() {
  const top = scrollY - sheet.offsetTop, first = Math.max(0, Math.floor(top / height) - 2) * columns;
  const end = Math.min(shownRows.length, (Math.ceil((top + innerHeight) / height) + 2) * columns);
  for (const [i, card] of cards) if (i < first || i >= end) { card.remove(); cards.delete(i); }
  let last = null;
  for (let i = first; i < end; i++) {
    let card = cards.get(i);
    if (!card) { cards.set(i, (card = cardOf(shownRows[i], i))); if (last) last.after(card); else sheet.prepend(card); }
    last = card;
  }
}
function cardOf(r, i) {
  const card = make("figure"), canvas = make("canvas", "", card), text = make("figcaption", "", card);
  card.style.cssText = `left:${(i % columns) * width}px;top:${Math.floor(i / columns) * height}px;width:${width}px`;
  card.tabIndex = i === at ? 0 : -1;
  card.setAttribute("role", "listitem");
  card.setAttribute("aria-setsize", shownRows.length); card.setAttribute("aria-posinset", i + 1);
  canvas.width = 193; canvas.height = 63;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `science, reference and difference stamps of ${r.id}`);
  paint(canvas, r);
  make("b", r.id, text).title = r.id;
  const chances = scored(r) ? C.map((c, k) => [c, r.p[k]]).slice(C.length === 2 ? 1 : 0).sort((a, b) => b[1] - a[1])
    .slice(0, 2).map(([c, p]) => `${c} ${p.toFixed(3)}`).join(" · ") : "not scored";
  const bright = r.facts.magnitude === undefined ? "" : `${r.facts.magnitude.toFixed(1)} mag`;
  make("span", [chances, bright].filter(Boolean).join(" · "), text);
  if (r.q) { const flag = make("span", words(r), text); flag.className = "flag"; flag.title = flag.textContent; }
  const given = marks.get(r.order);
  if (given) make("span", given.label || "note", card).className = "marked";
  card.onclick = () => { at = i; open(); };
  return card;
}
function renew(i) {
  const card = cards.get(i);
  if (!card) return;
  const fresh = cardOf(shownRows[i], i), focused = card === document.activeElement;
  card.replaceWith(fresh); cards.set(i, fresh);
  if (focused) fresh.focus({ preventScroll: true });
}
function go(i) {
  at = Math.max(0, Math.min(i, shownRows.length - 1));
  const y = sheet.offsetTop + Math.floor(at / columns) * height, head = document.querySelector("header");
  const covered = getComputedStyle(head).position === "sticky" ? head.offsetHeight : 0;
  if (y - covered < scrollY) scrollTo(0, y - covered);
  else if (y + height > scrollY + innerHeight) scrollTo(0, y + height - innerHeight);
  draw();
  for (const [k, card] of cards) card.tabIndex = k === at ? 0 : -1;
  if (!view.open) cards.get(at)?.focus({ preventScroll: true });
}
function answer(key) {
  const r = shownRows[at], given = marks.get(r.order)?.label;
  if (key === "0") mark(r, { label: "", note: "" });
  else if (C[+key - 1]) mark(r, { label: given === C[+key - 1] ? "" : C[+key - 1] });
  else return false;
  renew(at);
  return true;
}
const plain = (e) => !e.ctrlKey && !e.metaKey && !e.altKey;
sheet.addEventListener("keydown", (e) => {
  const page = columns * Math.max(1, Math.floor(innerHeight / height) - 1);
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -page, PageDown: page,
    Home: -shownRows.length, End: shownRows.length }[e.key];
  if (!plain(e)) return;
  if (by) { e.preventDefault(); go(at + by); } else if (e.key === "Enter") { e.preventDefault(); open(); } else answer(e.key);
});
sheet.addEventListener("focusin", (e) => { for (const [k, card] of cards) if (card === e.target) at = k; });

// --- one candidate, enlarged ----------------------------------------------------------------------------
const sexagesimal = (value, digits) => {
  let rest = Math.round(Math.abs(value) * 3600 * 10 ** digits) / 10 ** digits;
  const whole = Math.floor(rest / 3600), minutes = Math.floor((rest -= whole * 3600) / 60);
  return [whole, minutes].map((n) => String(n).padStart(2, "0")).join(":") + ":" +
    (rest - minutes * 60).toFixed(digits).padStart(3 + digits, "0");
};
function open() { if (!shownRows.length) return; show(); if (!view.open) view.showModal(); }
async function show() {
  const r = shownRows[at], { facts } = r;
  $("name").textContent = r.id;
  $("back").disabled = at === 0; $("next").disabled = at === shownRows.length - 1;
  $("chance").replaceChildren();
  if (scored(r)) C.map((c, k) => [c, r.p[k]]).sort((a, b) => b[1] - a[1]).forEach(([c, p]) => {
    make("span", c, $("chance")); make("i", "", make("div", "", $("chance"))).style.cssText = `display:block;width:${100 * p}%`;
    make("span", p.toFixed(3), $("chance"));
  }); else make("span", "not scored", $("chance"));
  const given = marks.get(r.order);
  $("answers").replaceChildren();
  C.forEach((c, k) => {
    const button = make("button", `${c} `, $("answers"));
    make("kbd", k + 1, button);
    button.setAttribute("aria-pressed", given?.label === c);
    button.onclick = () => { answer(String(k + 1)); show(); $("answers").children[k].focus(); };
  });
  $("note").value = given?.note ?? "";
  $("facts").replaceChildren();
  const fact = (name, text) => { make("dt", name, $("facts")); return make("dd", text, $("facts")); };
  if (facts.ra !== undefined && facts.dec !== undefined) {
    const text = `${facts.ra.toFixed(5)} ${facts.dec >= 0 ? "+" : ""}${facts.dec.toFixed(5)}`;
    const cell = fact("RA, Dec", `${text} `), copy = make("button", "Copy", cell);
    make("div", `${sexagesimal(facts.ra / 15, 2)} ${facts.dec < 0 ? "−" : "+"}${sexagesimal(facts.dec, 1)} (ICRS)`, cell);
    copy.onclick = async () => {
      try { await navigator.clipboard.writeText(text); copy.textContent = "Copied"; }
      catch { getSelection().selectAllChildren(cell); copy.textContent = "Selected"; }
    };
  }
  if (facts.magnitude !== undefined) fact("Magnitude", `${facts.magnitude.toFixed(2)}${facts.band ? ` (${facts.band})` : ""}`);
  if (facts.snr !== undefined) fact("Signal-to-noise", facts.snr.toFixed(1));
  if (facts.positive !== undefined) fact("Subtraction", facts.positive ? "brighter than the reference" : "fainter than the reference");
  if (facts.survey) fact("Survey", facts.survey);
  if (r.q) fact("Flags", words(r)).className = "flag";
  if (facts.error) fact("Error", facts.error);
  const where = [...new Set(Object.values(r.source))].join(", ");
  if (where) fact("File", where);
  $("stamps").replaceChildren();
  const sides = CHANNELS.map((name, k) => {
    const box = make("div", "", $("stamps")), canvas = make("canvas", "", box);
    canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", `${name} stamp of ${r.id}`);
    make("div", facts.absent?.includes(k) ? `${name}: none` : name + (k === 2 && facts.positive === false ? " (negative)" : ""), box);
    return canvas;
  });
  const from = await tile(r);
  sides.forEach((canvas, k) => {
    canvas.width = canvas.height = SIDE * 8;
    stamp(canvas.getContext("2d"), r, from, k, 0, canvas.width);
    if (k === 0 && !facts.absent?.includes(0)) legend(canvas.getContext("2d"), r, canvas.width);
  });
}
const step = (by) => { go(at + by); show(); };
$("back").onclick = () => step(-1);
$("next").onclick = () => step(1);
$("shut").onclick = () => view.close();
view.addEventListener("close", () => go(at));
$("note").oninput = () => { mark(shownRows[at], { note: $("note").value }); renew(at); };
view.addEventListener("keydown", (e) => {
  if (e.target === $("note") || !plain(e)) return;
  const by = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
  if (by) { e.preventDefault(); step(by); } else if (answer(e.key)) show();
});
let touched = null;
$("stamps").addEventListener("touchstart", (e) => { touched = e.touches[0].clientX; }, { passive: true });
$("stamps").addEventListener("touchend", (e) => {
  const moved = e.changedTouches[0].clientX - touched;
  if (Math.abs(moved) > 50) step(moved > 0 ? -1 : 1);
}, { passive: true });

addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
addEventListener("resize", layout);
$("size").addEventListener("input", layout);
$("tools").addEventListener("input", (e) => e.target === $("size") || choose());
$("tools").addEventListener("submit", (e) => e.preventDefault());
$("export").onclick = save;
tell();
choose();
