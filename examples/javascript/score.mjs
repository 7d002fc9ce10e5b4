// Score cutouts or alert packets with a raw model: node score.mjs realbogus.onnx FILE...
import { readFile } from "node:fs/promises";
import ort from "onnxruntime-node";
import { readMetadata } from "./metadata.mjs";
import { readCandidates } from "./readers.mjs";

const [modelPath, ...files] = process.argv.slice(2);
if (files.length === 0) {
  console.error("usage: node score.mjs MODEL.onnx FILE...");
  process.exit(2);
}
const model = await readFile(modelPath);
const session = await ort.InferenceSession.create(model);
const classes = readMetadata(model).transientnet_classes.split("\n");
console.log(["id", ...classes.map((name) => `p_${name}`), "quality"].join(","));
for (const file of files) {
  for (const { id, width, height, stamps, fwhm } of await readCandidates(file, await readFile(file))) {
    const { probabilities, quality } = await session.run({
      stamps: new ort.Tensor("float32", stamps, [1, 3, height, width]),
      fwhm: new ort.Tensor("float32", [fwhm], [1]),
    });
    const numbers = [...probabilities.data].map((p) => (Number.isNaN(p) ? "nan" : p.toFixed(7)));
    console.log([id, ...numbers, quality.data[0]].join(","));
  }
}
