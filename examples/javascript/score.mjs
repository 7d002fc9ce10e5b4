// Score FITS cutouts with a raw model: node score.mjs realbogus.onnx cutout.fits...
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import ort from "onnxruntime-node";

const CHANNELS = ["SCIENCE", "REFERENCE", "DIFFERENCE"];
const BLOCK = 2880;

/** Float images of the named extensions of a FITS file, each with its header. */
function readFits(bytes) {
  const images = {};
  for (let at = 0; at + BLOCK <= bytes.length; ) {
    const header = {};
    for (let ended = false; !ended; at += BLOCK) {
      for (const card of bytes.toString("latin1", at, at + BLOCK).match(/.{80}/gs)) {
        if (card.startsWith("END     ")) ended = true;
        if (card[8] !== "=") continue;
        const text = card.slice(10).match(/^\s*'([^']*)'|^[^/]*/);
        header[card.slice(0, 8).trim()] = (text[1] ?? text[0]).trim();
      }
      if (at + BLOCK > bytes.length) throw new Error("no end of a FITS header");
    }
    const axes = Number(header.NAXIS);
    const [width, height] = axes === 2 ? [Number(header.NAXIS1), Number(header.NAXIS2)] : [0, 0];
    const size = Math.abs(Number(header.BITPIX)) / 8;
    if (CHANNELS.includes(header.EXTNAME)) {
      if (header.BITPIX !== "-32" || axes !== 2) throw new Error(`${header.EXTNAME} is not a 2-D float32 image`);
      const pixels = new Float32Array(width * height);
      for (let i = 0; i < pixels.length; i++) pixels[i] = bytes.readFloatBE(at + 4 * i);
      images[header.EXTNAME] = { header, width, height, pixels };
    }
    at += Math.ceil((width * height * size) / BLOCK) * BLOCK;
  }
  return images;
}

/** The metadata of an ONNX file, which onnxruntime-node does not hand on: field 14 of its outermost message. */
function readMetadata(bytes, start = 0, stop = bytes.length) {
  const metadata = {};
  for (const [field, from, to] of fields(bytes, start, stop)) {
    if (field !== 14) continue;
    const pair = {};
    for (const [key, low, high] of fields(bytes, from, to)) pair[key] = bytes.toString("utf8", low, high);
    metadata[pair[1]] = pair[2];
  }
  return metadata;
}

function* fields(bytes, at, stop) {
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < stop) {
    const key = varint();
    const length = { 0: () => (varint(), 0), 1: () => 8, 2: varint, 5: () => 4 }[key & 7]();
    yield [key >> 3, at, at + length];
    at += length;
  }
}

const [modelPath, ...files] = process.argv.slice(2);
if (files.length === 0) {
  console.error("usage: node score.mjs MODEL.onnx CUTOUT.fits...");
  process.exit(2);
}
const model = await readFile(modelPath);
const session = await ort.InferenceSession.create(model);
const classes = readMetadata(model).transientnet_classes.split("\n");
console.log(["id", ...classes.map((name) => `p_${name}`), "quality"].join(","));
for (const file of files) {
  const images = readFits(await readFile(file));
  const { header, width, height } = images.SCIENCE;
  const stamps = new Float32Array(3 * width * height).fill(NaN);
  CHANNELS.forEach((name, channel) => {
    if (images[name]) stamps.set(images[name].pixels, channel * width * height);
  });
  const { probabilities, quality } = await session.run({
    stamps: new ort.Tensor("float32", stamps, [1, 3, height, width]),
    fwhm: new ort.Tensor("float32", [Number(header.FWHM ?? 0)], [1]),
  });
  const numbers = [...probabilities.data].map((p) => (Number.isNaN(p) ? "nan" : p.toFixed(7)));
  console.log([basename(file, ".fits"), ...numbers, quality.data[0]].join(","));
}
