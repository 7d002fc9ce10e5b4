// Progress, pace, agreement and training, in words and bars.

import { showCurve } from "./curve.js";

const $ = (id) => document.getElementById(id);
const RECENT = 12;
const PAUSE_MS = 60_000;
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

const times = [];

/** Answers a minute of late, pauses left out, and the time that the goal is away at this pace. */
export function showPace(goal, mine, answered) {
  if (answered) times.push(Date.now());
  if (mine >= goal) return void ($("pace").textContent = `goal of ${goal} reached`);
  const steps = times.slice(-RECENT).map((time, k, all) => time - (all[k - 1] ?? time)).slice(1);
  const worked = steps.filter((step) => step < PAUSE_MS);
  if (worked.length < 4) return void ($("pace").textContent = `${goal - mine} to the goal`);
  const rate = 60_000 / Math.max(1, worked.reduce((sum, step) => sum + step, 0) / worked.length);
  const left = Math.ceil((goal - mine) / rate);
  $("pace").textContent = `${Math.round(rate)} a minute, ${plural(left, "minute")} left to ${goal}`;
}

function agreement({ labellers, kappa, low, high, same, n }) {
  const [one, other] = labellers;
  const who = one === other ? `${one}, asked a second time` : `${one} and ${other}`;
  const figure = kappa === null ? "undefined" : `${kappa.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
  return `${who}: Cohen’s kappa ${figure}, the same class for ${same} of ${n}.`;
}

export function showProgress(run) {
  const { total, judged, mine, counts, unsure, random, agreements, disputed, labellers } = run.progress;
  $("bar").max = total;
  $("bar").value = judged;
  $("count").textContent = `${judged} of ${total}` + (labellers.length > 1 ? ` (${mine} by ${run.labeller})` : "");
  const most = Math.max(1, ...Object.values(counts));
  $("balance").replaceChildren(
    ...Object.entries({ ...counts, "unsure or disputed": unsure }).flatMap(([name, count]) => {
      const [term, bar, figure] = ["span", "progress", "span"].map((tag) => document.createElement(tag));
      term.textContent = name;
      bar.max = Math.max(most, unsure);
      bar.value = count;
      bar.setAttribute("aria-label", name);
      figure.textContent = count;
      return [term, bar, figure];
    }),
  );
  $("random").textContent = `${random[0]} of ${random[1]} drawn at random are done: a uniform sample of the candidates.`;
  $("agreement").replaceChildren(
    ...(agreements.length ? agreements : [null]).map((one) => {
      const line = document.createElement("p");
      line.textContent = one ? agreement(one) : "Nobody else has labelled the same candidates yet.";
      return line;
    }),
    ...(disputed.length ? [`${disputed.length} disputed: choose “disputed” in the grid, open one, and settle it by your answer.`] : []),
  );
  showCurve($("curve"), $("worth"), run.progress);
  showTraining(run);
}

function showTraining(run) {
  const { state, stage, lines } = run.training;
  const texts = {
    unavailable: "Training needs an optional dependency: pip install 'transientnet[adapt,label]'.",
    idle: run.progress.model ? `The queue is ordered by ${run.progress.model}.` : "The model is looking at the candidates; until then they come at random.",
    running: "Training; labelling can go on.",
    ordering: "Trained; the new model puts the queue in order.",
    done: `Trained. The queue is ordered by ${run.progress.model}.`,
    failed: "Training failed:",
  };
  const busy = state === "running" || state === "ordering", bar = $("train-bar");
  bar.hidden = !busy;
  if (state === "running" && stage) {
    const counted = stage.total > 1;
    texts.running = `Training: ${stage.stage}${counted ? `, ${stage.done} of ${stage.total}` : ""}. Labelling can go on.`;
    bar.max = stage.total || 1;
    if (counted) bar.value = stage.done;
    else bar.removeAttribute("value");
  } else bar.removeAttribute("value");
  // Words that stay are not read out again.
  if ($("train-state").textContent !== texts[state]) $("train-state").textContent = texts[state];
  $("train").textContent = busy ? "Training…" : state === "failed" ? "Train again" : "Train now";
  $("train-lines").hidden = lines.length === 0;
  $("train-lines").textContent = lines.join("\n");
  $("train").disabled = state === "unavailable" || busy;
}
