// What this visit knows, and what it looks at: one of each, shared by all modules.

export const run = {
  labeller: "", classes: [], keys: [], ids: [], order: [], answers: {}, next: [], progress: null, training: null, again: null, links: [], goal: 0,
};
export const view = { row: null, shown: null, past: [], stretch: "asinh", zoom: 0, blink: 0, phase: 0, grid: false, opinions: false };

// One that is asked a second time looks as if it were new.
export const said = (row) => (row !== run.again && run.answers[row]) || ["none", "", ""];
