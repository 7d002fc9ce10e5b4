// One candidate on the screen: its stamps, how they are drawn, and the facts beside them.

import { say } from "./notices.js";
import { run, view } from "./state.js";
import { draw } from "./stamps.js";

const $ = (id) => document.getElementById(id);
export const STRETCHES = ["asinh", "zscale", "linear"];
const CHANNELS = ["science", "reference", "difference"];
const ZOOMS = [1, 2, 4, 8];
const BLINK_MS = 500;
// Facts beside the stamps: name and unit.
const QUANTITIES = {
  magnitude: ["brightness", " mag"], snr: ["signal-to-noise", ""], pixel_scale: ["pixel scale", " ″/px"], fwhm: ["FWHM", " px"],
};

export function buildStage() {
  for (const channel of CHANNELS) {
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 480;
    canvas.id = `stamp-${channel}`;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${channel} stamp`);
    const caption = document.createElement("figcaption");
    caption.textContent = channel;
    caption.id = `caption-${channel}`;
    figure.append(caption, canvas);
    $("stage").append(figure);
  }
  const [below, facts, curve] = ["div", "dl", "figure"].map((tag) => document.createElement(tag));
  [below.id, facts.id, curve.id] = ["below", "facts", "light-curve"];
  curve.hidden = true;
  below.append(facts, curve);
  $("stage").append(below);
}

export function paint() {
  if (!view.shown) return;
  const options = { stretch: view.stretch, zoom: ZOOMS[view.zoom], marks: true, pixelScale: view.shown.pixel_scale };
  CHANNELS.forEach((channel, k) => {
    const other = k === 0 && view.phase ? 1 : k;
    draw($(`stamp-${channel}`), view.shown.stamps[other], options);
    $(`caption-${channel}`).textContent = other === k ? channel : `reference (blinking)`;
  });
  $("zoom").textContent = `${ZOOMS[view.zoom]}×`;
}

export function showFacts(found) {
  const facts = [["candidate", found.id]];
  for (const name of ["group", "survey", "band"]) if (found[name]) facts.push([name, found[name]]);
  for (const [name, [term, unit]] of Object.entries(QUANTITIES)) {
    if (found[name] !== undefined) facts.push([term, `${Number(found[name].toPrecision(4))}${unit}`]);
  }
  if (found.ra !== undefined && found.dec !== undefined) facts.push(["RA, Dec", whereabouts(found)]);
  if (found.flags.length) facts.push(["quality", found.flags.join(", ")]);
  $("facts").replaceChildren(
    ...facts.map(([term, text]) => {
      const pair = document.createElement("div");
      const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
      dt.textContent = term;
      dd.append(...[text].flat());
      pair.append(dt, dd);
      return pair;
    }),
  );
}

/** Where it is on the sky: to copy, and links that the user has set. */
function whereabouts({ id, ra, dec }) {
  const place = `${ra.toFixed(5)} ${dec.toFixed(5)}`;
  const [text, copy] = ["span", "button"].map((tag) => document.createElement(tag));
  text.textContent = place;
  copy.type = "button";
  copy.className = "small";
  copy.textContent = "Copy";
  copy.setAttribute("aria-label", `Copy RA and Dec ${place}`);
  copy.addEventListener("click", async () => {
    // A page that is not of this machine has no clipboard of its own: then the text is left marked.
    getSelection().selectAllChildren(text);
    await navigator.clipboard?.writeText(place).catch(() => {});
    say(`${navigator.clipboard ? "copied" : "marked"}: ${place}`);
  });
  const links = run.links.map(([name, address]) => {
    const link = document.createElement("a");
    link.textContent = name;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    const values = { ra, dec, id };
    link.href = address.replace(/\{(ra|dec|id)\}/g, (_, key) => encodeURIComponent(values[key]));
    return link;
  });
  return [text, copy, ...links];
}

// --- looking ------------------------------------------------------------------------------------------

export function setStretch(name) {
  view.stretch = $("stretch").value = name;
  paint();
}

export function setZoom(step) {
  view.zoom = Math.max(0, Math.min(ZOOMS.length - 1, view.zoom + step));
  paint();
}

export function toggleBlink() {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
    view.phase = 1 - view.phase;
  } else if (view.blink) {
    clearInterval(view.blink);
    view.blink = view.phase = 0;
  } else {
    view.phase = 1;
    view.blink = setInterval(() => {
      view.phase = 1 - view.phase;
      paint();
    }, BLINK_MS);
  }
  $("blink").setAttribute("aria-pressed", Boolean(view.blink || view.phase));
  paint();
}

