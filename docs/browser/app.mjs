// The page on which a person drops stamps: readers, runtime and model all come from this site.
import { readCandidates } from "./readers.mjs";

const CHANNELS = ["science", "reference", "difference"];
const MOST = 200;
const MISSING = [42, 74, 107]; // a dull blue: no grey level, told apart by the colour-blind
const here = (name) => new URL(name, import.meta.url);
const element = (id) => document.getElementById(id);
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

const parts = await fetch(here("parts.json")).then((answer) => (answer.ok ? answer.json() : null), () => null);
const models = {};
let runtime;

if (parts === null) {
  say("This copy of the documentation was built without the runtime; see “Use a model from another language”.");
  for (const control of ["files", "model", "example"]) element(control).disabled = true;
} else {
  for (const { name, description } of parts.models) element("model").add(new Option(`${name}: ${description}`, name));
  element("size").textContent = `${megabytes(parts.runtime)} and ${megabytes(parts.models[0].bytes)}`;
  element("files").addEventListener("change", (event) => score([...event.target.files]));
  element("model").addEventListener("change", () => shown.length && score(shown));
  element("example").addEventListener("click", examples);
  const drop = element("drop");
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragenter" || name === "dragover");
    });
  }
  drop.addEventListener("drop", (event) => score([...event.dataTransfer.files]));
}

let shown = [];

function say(text) {
  element("status").textContent = text;
}

async function examples() {
  const found = parts.examples.map(async (name) => {
    const answer = await fetch(here(name));
    return new File([await answer.arrayBuffer()], name);
  });
  score(await Promise.all(found));
}

/** The runtime, unpacked here: whatever serves this site, its 14 MB travel as 4. */
async function load() {
  const ort = await import(here("ort.mjs"));
  const packed = await fetch(here("ort.wasm.bin"));
  const stream = packed.body.pipeThrough(new DecompressionStream("gzip"));
  ort.env.wasm.wasmBinary = await new Response(stream).arrayBuffer();
  ort.env.wasm.numThreads = 1;
  return ort;
}

async function open(name) {
  const [ort, answer] = await Promise.all([(runtime ??= load()), fetch(here(`${name}.onnx`))]);
  const { classes, flags } = parts.models.find((model) => model.name === name);
  const session = await ort.InferenceSession.create(new Uint8Array(await answer.arrayBuffer()));
  return { ort, session, classes, flags };
}

let latest = 0;

async function score(files) {
  if (files.length === 0) return;
  const mine = ++latest;
  const list = document.createElement("ol");
  shown = files;
  element("answers").replaceChildren();
  try {
    say("Loading the runtime and the model…");
    const name = element("model").value;
    const model = await (models[name] ??= open(name));
    let count = 0;
    for (const file of files) {
      let candidates = [];
      try {
        candidates = await readCandidates(file.name, new Uint8Array(await file.arrayBuffer()));
      } catch (error) {
        element("answers").append(refusal(file.name, error.message));
      }
      for (const candidate of candidates.slice(0, MOST)) {
        const answer = await ask(model, candidate);
        if (mine !== latest) return;
        element("answers").append(row(candidate, answer, model));
        if (++count % 10 === 0) say(`${count} candidates…`);
      }
      if (candidates.length > MOST) element("answers").append(refusal(file.name, `the first ${MOST} of ${candidates.length} candidates`));
    }
    say(count === 1 ? "1 candidate." : `${count} candidates.`);
  } catch (error) {
    delete models[element("model").value];
    runtime = undefined;
    say(`The model could not be loaded: ${error.message}`);
  }
}

async function ask({ ort, session }, { width, height, stamps, fwhm }) {
  const { probabilities, quality } = await session.run({
    stamps: new ort.Tensor("float32", stamps, [1, 3, height, width]),
    fwhm: new ort.Tensor("float32", Float32Array.of(fwhm), [1]),
  });
  return { probabilities: [...probabilities.data], quality: quality.data[0] };
}

function made(kind, text = "", className = "") {
  const node = document.createElement(kind);
  node.textContent = text;
  node.className = className;
  return node;
}

function refusal(name, reason) {
  const item = made("li");
  item.append(made("strong", name), made("p", reason, "vetting-refused"));
  return item;
}

function row(candidate, { probabilities, quality }, { classes, flags }) {
  const item = made("li");
  item.dataset.id = candidate.id;
  item.dataset.quality = quality;
  item.dataset.probabilities = JSON.stringify(probabilities.map((p) => (Number.isNaN(p) ? null : p)));
  const best = probabilities.indexOf(Math.max(...probabilities));
  const refused = best < 0;
  const verdict = refused ? "cannot be judged" : `${classes[best]}, ${(100 * probabilities[best]).toFixed(1)} %`;
  const heading = made("p", "", "vetting-verdict");
  heading.append(made("strong", verdict), ` ${candidate.id}`);
  const pictures = made("div", "", "vetting-stamps");
  CHANNELS.forEach((channel, c) => pictures.append(picture(candidate, channel, c)));
  item.append(heading, pictures);
  if (!refused) {
    const table = made("dl", "", "vetting-classes");
    probabilities.forEach((p, c) => {
      const bar = made("meter");
      [bar.value, bar.ariaLabel] = [p, `probability of ${classes[c]}`];
      const value = made("dd");
      value.append(bar, ` ${p.toFixed(4)}`);
      table.append(made("dt", classes[c]), value);
    });
    item.append(table);
  }
  const set = Object.keys(flags).filter((name) => quality & flags[name]);
  const seeing = candidate.fwhm > 0 ? `seeing ${candidate.fwhm.toFixed(1)} px` : "seeing not given";
  const facts = [candidate.survey, `${candidate.width} × ${candidate.height} px`, seeing, ...set.map((name) => name.toLowerCase().replaceAll("_", " "))];
  item.append(made("p", facts.filter(Boolean).join(" · "), "vetting-facts"));
  return item;
}

/** One stamp between its 1st and 99.5th percentile, first row at the bottom. */
function picture({ width, height, stamps }, channel, c) {
  const pixels = stamps.subarray(c * width * height, (c + 1) * width * height);
  const sorted = pixels.filter(Number.isFinite).sort();
  const figure = made("figure");
  const canvas = made("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", sorted.length ? `${channel} stamp` : `no ${channel} stamp`);
  [canvas.width, canvas.height] = [width, height];
  const [low, high] = [0.01, 0.995].map((share) => sorted[Math.floor(share * (sorted.length - 1))]);
  const image = new ImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = pixels[y * width + x];
      const grey = (255 * (value - low)) / (high - low || 1);
      const colour = Number.isFinite(value) ? [grey, grey, grey] : MISSING;
      image.data.set([...colour, 255], 4 * ((height - 1 - y) * width + x));
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  figure.append(canvas, made("figcaption", sorted.length ? channel : `no ${channel}`));
  return figure;
}
