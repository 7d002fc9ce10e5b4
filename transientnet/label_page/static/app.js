import { Refused, candidate, get, post, reason } from "./server.js";
import { Outbox } from "./outbox.js";
import { alarm, say } from "./notices.js";
import { STRETCHES, buildStage, paint, setStretch, setZoom, showFacts, toggleBlink } from "./one.js";
import { run, said, view } from "./state.js";
import { Grid } from "./grid.js";
import { fillGuide } from "./guide.js";
import { showPace, showProgress } from "./panel.js";
import { measurements, showLightCurve } from "./lightcurve.js";
import { onSwipe } from "./touch.js";

const $ = (id) => document.getElementById(id);
const LISTEN_MS = 4000;
let outbox = null;

// --- one thing after the other --------------------------------------------------------------------------

let doing = Promise.resolve();

/** Keys and clicks are done in their order, each on what is on the screen when its turn comes. */
function queued(action) {
  doing = doing.then(action).catch((error) => alarm(String(error)));
  return doing;
}

/** Resolves when the browser has put on the screen what was drawn; a hidden tab never does. */
const painted = () =>
  new Promise((resolve) => {
    requestAnimationFrame(() => requestAnimationFrame(resolve));
    setTimeout(resolve, 60);
  });

// --- the server's word --------------------------------------------------------------------------------

/** Run a request; what fails is said, never swallowed. */
async function trying(action, failure, about) {
  try {
    const result = await action();
    alarm("", about);
    return result;
  } catch (error) {
    alarm(error instanceof Refused ? error.message : `${failure} ${reason(error)}`, about);
    return null;
  }
}

async function take(state) {
  const generation = run.progress?.generation;
  Object.assign(run, { next: state.next, again: state.again, progress: state.progress, training: state.training });
  for (const row of run.next) candidate(row).catch(() => {});
  if (generation !== undefined && generation !== run.progress.generation) {
    run.order = await get("api/order");
    const learned = run.progress.fitted_on ? `${run.progress.fitted_on} labels` : run.progress.model;
    say(`The queue is in a new order, after ${learned}.`);
  }
  showPace(run.goal, run.progress.mine);
  alarm(state.trouble, "table");
  showProgress(run);
}

// --- one candidate ------------------------------------------------------------------------------------

async function open(row) {
  if (row === undefined || row === null) {
    view.row = view.shown = null;
    $("stage").hidden = true;
    say("Nothing is left to ask you. Labels can still be changed in the grid.");
    $("answers").hidden = true;
    $("given").textContent = "";
    return;
  }
  const found = await trying(() => candidate(row), "The stamps did not come.");
  if (!found) return;
  $("stage").hidden = $("answers").hidden = false;
  view.row = row;
  view.shown = found;
  for (const next of run.next) candidate(next).catch(() => {});
  for (const next of [row, ...run.next.slice(0, 3)]) measurements(next);
  $("note").value = said(row)[2];
  showFacts(found);
  showAnswer();
  showDispute(row);
  showLightCurve($("light-curve"), row, () => row === view.row);
  paint();
  await painted();
}

/** The first of the next rows that was not answered here, whether the server has heard of it or not. */
const following = () => run.next.find((row) => row !== view.row && !outbox.holds(row));

async function showDispute(row) {
  $("given").textContent = "";
  if (!run.progress.disputed.includes(row)) return;
  const given = await get(`api/given?row=${row}`).catch(() => []);
  if (row !== view.row || !given.length) return;
  const texts = given.map(([name, label, note]) => `${name}: ${label}${note ? ` (“${note}”)` : ""}`);
  $("given").textContent = `In dispute. ${texts.join("; ")}. Your answer settles it.`;
}

function showAnswer() {
  const [kind, label] = said(view.row);
  for (const button of $("answers").children) {
    button.setAttribute("aria-pressed", button.dataset.kind === kind && button.dataset.label === label);
  }
}

function buildAnswers() {
  const make = (text, key, kind, label, className) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = className;
    Object.assign(button.dataset, { kind, label });
    const hint = document.createElement("kbd");
    hint.textContent = key;
    button.append(`${text} `, hint);
    button.addEventListener("click", () => queued(() => answer(kind, label)));
    $("answers").append(button);
    return button;
  };
  run.classes.forEach((name, k) => make(name, run.keys[k] || k + 1, "label", name, `k${k}`));
  make("unsure", "u", "unsure", "", "unsure");
  make("skip", "s", "skip", "", "");
  const undoButton = make("undo", "z", "undo", "", "");
  undoButton.replaceWith(undoButton.cloneNode(true));
  $("answers").lastChild.addEventListener("click", () => queued(undo));
}

/** An answer belongs to the stamp on the screen; the next one appears while the server writes. */
async function answer(kind, label) {
  if (view.grid) return answerGrid(kind, label);
  const row = view.row;
  if (row === null) return;
  const again = row === run.again;
  give(row, kind, label, $("note").value);
  say(`${label || kind}: ${run.ids[row]}`);
  $("model-says").textContent = "";
  if (view.opinions && kind !== "skip" && !again) outbox.idle().then(() => opinionOf(row));
  view.past.push(row);
  $("note").blur();
  if (following() === undefined) await outbox.idle();
  await open(following());
}

/** In the grid an answer goes to all that are selected. */
function answerGrid(kind, label) {
  const rows = grid.chosenRows();
  if (!rows.length) return;
  for (const row of rows) give(row, kind, label, said(row)[2]);
  say(`${label || kind}: ${rows.length > 1 ? `${rows.length} candidates` : run.ids[rows[0]]}`);
  grid.unselect();
  if (rows.length === 1) grid.select(grid.at + 1);
}

function give(row, kind, label, note) {
  outbox.push({ row, kind, label, note, before: run.answers[row] });
  showPace(run.goal, run.progress.mine + outbox.size, true);
  if (row === run.again) run.again = null;
  else run.answers[row] = [kind, label, note];
}

async function undo() {
  await outbox.idle();
  const state = await trying(() => post("api/undo", { labeller: run.labeller }), "Nothing was undone.");
  if (!state) return;
  await take(state);
  if (state.row === null) return say("There is nothing to undo.");
  run.answers[state.row] = state.answer;
  say(`undone: ${run.ids[state.row]}`);
  view.past = view.past.filter((row) => row !== state.row);
  if (view.grid) {
    const place = grid.rows.indexOf(state.row);
    if (place >= 0) grid.select(place);
  } else await open(state.row);
}

async function back() {
  const row = view.past.pop();
  if (row === undefined) return say("This is the first one of this visit.");
  await open(row);
}

async function forward() {
  const row = following();
  if (view.row !== null) view.past.push(view.row);
  await open(row ?? run.next[0]);
}

/** The model's opinion comes after the answer: of this one if it is given, else of each from now on. */
async function opinion() {
  if (view.grid || view.row === null) return;
  const answered = ["label", "unsure"].includes(said(view.row)[0]);
  if (answered) return opinionOf(view.row);
  view.opinions = !view.opinions;
  $("opinion").setAttribute("aria-pressed", view.opinions);
  say(view.opinions ? "The model’s opinion follows each answer." : "The model’s opinion is hidden.");
  if (!view.opinions) $("model-says").textContent = "";
}

async function opinionOf(row) {
  const found = await trying(() => post("api/opinion", { labeller: run.labeller, row }), "No opinion came.");
  if (!found) return;
  const p = Object.entries(found.probabilities ?? {}).map(([name, value]) => `${name} ${(100 * value).toFixed(1)} %`);
  $("model-says").textContent = `${run.ids[row]}, ${found.model}: ${p.join(", ") || "refuses to score this candidate"}`;
}

function saveNote() {
  if (view.row === null) return;
  const [kind, label, note] = said(view.row);
  if (view.row === run.again) return;
  if ($("note").value !== note) give(view.row, kind, label, $("note").value);
}

// --- the grid -----------------------------------------------------------------------------------------

const grid = new Grid($("grid"), {
  look: (row) => {
    const [kind, label] = said(row);
    const k = run.classes.indexOf(label);
    const text = kind === "label" ? label : kind === "none" ? "" : kind;
    return { id: run.ids[row], text, className: kind === "label" ? `k${k}` : kind, stretch: view.stretch };
  },
  chosen: (row) => toggleGrid(row),
  selected: (count) => ($("selected").textContent = count ? `${count} selected` : ""),
});

function look(stretch) {
  setStretch(stretch);
  if (view.grid) grid.repaint();
}

const FILTERS = {
  all: () => true,
  "not labelled": (row) => !["label", "unsure"].includes(said(row)[0]),
  unsure: (row) => said(row)[0] === "unsure",
  "with a note": (row) => said(row)[2],
  disputed: (row) => run.progress.disputed.includes(row),
};

function buildFilters() {
  for (const name of run.classes) FILTERS[`labelled ${name}`] = (row) => said(row)[1] === name;
  $("filter").replaceChildren(...Object.keys(FILTERS).map((name) => new Option(name, name)));
}

function fillGrid(row) {
  const rows = run.order.filter(FILTERS[$("filter").value]);
  $("shown").textContent = `${rows.length} of ${run.order.length}`;
  grid.show(rows, Math.max(0, rows.indexOf(row)));
}

async function toggleGrid(row) {
  view.grid = !view.grid;
  $("one").hidden = view.grid;
  $("many").hidden = !view.grid;
  $("looks").hidden = view.grid;
  $("answers").hidden = !view.grid && view.row === null && run.next.length === 0;
  $("mode").firstChild.textContent = view.grid ? "One by one " : "Grid ";
  if (view.grid) {
    fillGrid(view.row);
    $("grid").focus();
  } else {
    const wanted = row ?? view.row ?? run.next[0];
    if (view.row !== null && wanted !== view.row) view.past.push(view.row);
    await open(wanted);
  }
}

// --- progress, agreement, training ----------------------------------------------------------------------

async function train() {
  const state = await trying(() => post("api/train", { labeller: run.labeller }), "Training did not start.");
  if (state) await take(state);
}

async function listen() {
  const state = await trying(
    () => get(`api/progress?labeller=${encodeURIComponent(run.labeller)}`),
    "Answers cannot be saved now.",
    "server",
  );
  if (state) await take(state);
  setTimeout(listen, run.training?.state === "running" ? LISTEN_MS / 4 : LISTEN_MS);
}

// --- keys -----------------------------------------------------------------------------------------------

const COMMANDS = {
  u: ["unsure", () => answer("unsure", "")],
  s: ["skip: ask me later", () => answer("skip", "")],
  z: ["undo (Backspace, too)", undo],
  n: ["write a note (Enter keeps it)", () => $("note").focus()],
  c: ["next stretch", () => look(STRETCHES[(STRETCHES.indexOf(view.stretch) + 1) % STRETCHES.length])],
  x: ["blink science and reference", toggleBlink],
  "+": ["zoom in", () => setZoom(1)],
  "-": ["zoom out", () => setZoom(-1)],
  m: ["the model’s opinion after each answer", opinion],
  f: ["field guide", () => $("guide").showModal()],
  g: ["grid, or one by one", () => toggleGrid(view.grid ? grid.row : undefined)],
  "?": ["this list", () => $("help").showModal()],
};
const OTHERS = { Backspace: undo, "=": () => setZoom(1), ArrowLeft: back, ArrowRight: forward };

function buildKeys() {
  const entries = run.classes.map((name, k) => [[k + 1, run.keys[k]].filter(Boolean).join(" or "), name]);
  for (const [key, [text]] of Object.entries(COMMANDS)) entries.push([key, text]);
  entries.push(["← →", "back, on"]);
  $("keys").replaceChildren(
    ...entries.flatMap(([key, text]) => {
      const [dt, dd, kbd] = ["dt", "dd", "kbd"].map((tag) => document.createElement(tag));
      kbd.textContent = key;
      dt.append(kbd);
      dd.textContent = text;
      return [dt, dd];
    }),
  );
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.target === $("note") && (event.key === "Enter" || event.key === "Escape")) $("note").blur();
    return;
  }
  if (view.grid && grid.moves(event.key)) {
    event.preventDefault();
    const extend = event.shiftKey;
    queued(() => grid.key(event.key, extend));
    return;
  }
  if (view.grid && event.key === "Enter" && event.target === $("grid")) return toggleGrid(grid.row);
  if (!$("shortcuts").checked && event.key.length === 1) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const k = /^[1-9]$/.test(key) ? Number(key) - 1 : run.keys.indexOf(key);
  const action =
    k >= 0 && k < run.classes.length && !event.repeat
      ? () => answer("label", run.classes[k])
      : (COMMANDS[key]?.[1] ?? OTHERS[key]);
  if (!action) return;
  event.preventDefault();
  queued(action);
});

$("note").addEventListener("blur", saveNote);
$("stretch").addEventListener("change", () => look($("stretch").value));
$("blink").addEventListener("click", toggleBlink);
$("zoom-in").addEventListener("click", () => setZoom(1));
$("zoom-out").addEventListener("click", () => setZoom(-1));
$("back").addEventListener("click", () => queued(back));
$("forward").addEventListener("click", () => queued(forward));
$("opinion").addEventListener("click", () => queued(opinion));
$("mode").addEventListener("click", () => toggleGrid(view.grid ? grid.row : undefined));
$("panel-button").addEventListener("click", () => $("panel").showModal());
$("help-button").addEventListener("click", () => $("help").showModal());
$("guide-button").addEventListener("click", () => $("guide").showModal());
$("pick").addEventListener("click", () => $("pick").setAttribute("aria-pressed", (grid.picking = !grid.picking)));
$("unpick").addEventListener("click", () => grid.unselect());
onSwipe($("stage"), (way) =>
  queued(() => {
    if (run.classes.length === 2) return answer("label", run.classes[way < 0 ? 0 : 1]);
    return way < 0 ? forward() : back();
  }),
);
$("filter").addEventListener("change", () => fillGrid());
$("train").addEventListener("click", train);

// --- start ----------------------------------------------------------------------------------------------

async function start(name) {
  const session = await get(`api/session?labeller=${encodeURIComponent(name)}`);
  Object.assign(run, session, { labeller: name.trim().split(/\s+/).join(" ") });
  outbox = new Outbox(run.labeller, {
    saved: take,
    trouble: (text) => alarm(text, "answers"),
    refused: (message, answers) => {
      for (const { row, before } of answers.toReversed()) run.answers[row] = before ?? ["none", "", ""];
      alarm(`NOT saved: ${answers.map(({ row }) => run.ids[row]).join(", ")}. ${message}`, "refused");
    },
    changed: (count) => ($("saving").textContent = count ? `saving ${count}…` : "saved"),
  });
  document.title = `${session.title} – transientnet label`;
  $("title").textContent = session.title;
  buildStage();
  buildAnswers();
  buildFilters();
  buildKeys();
  fillGuide($("guide-classes"), run.classes);
  if (run.classes.length === 2) $("swipe").textContent = `Swipe: ← ${run.classes[0]}, ${run.classes[1]} →`;
  showPace(run.goal, run.progress.mine);
  showProgress(run);
  await open(run.next[0]);
  setTimeout(listen, LISTEN_MS);
}

$("who-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    await start($("name").value);
    $("who").close();
  } catch (error) {
    $("who-problem").textContent = error instanceof Refused ? error.message : "The server cannot be reached.";
  }
});
$("who").addEventListener("cancel", (event) => event.preventDefault());

const given = new URLSearchParams(location.search).get("labeller");
if (given) {
  start(given).catch((error) => {
    $("who-problem").textContent = error.message;
    $("who").showModal();
  });
} else $("who").showModal();
