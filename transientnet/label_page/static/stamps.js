// Drawing stamps. Pixels come as asinh((x − median) / noise) in 16 bits; −32768 is missing.

const MISSING = -32768;
const MISSING_COLOUR = 0xff6b4a2a; // a dull blue (ABGR): no grey level, told apart by the colour-blind

/** Grey level (0–255) of each code for a stretch, as a table over all 65536 codes. */
function levels(stamp, stretch) {
  const key = `levels-${stretch}`;
  if (stamp[key]) return stamp[key];
  let low = Infinity, high = -Infinity;
  for (const code of stamp.codes) {
    if (code === MISSING) continue;
    if (code < low) low = code;
    if (code > high) high = code;
  }
  const value = (code) => Math.sinh(code * stamp.scale); // in noise above the sky
  let scaled;
  if (stretch === "zscale") {
    const [z1, z2] = stamp.zscale;
    scaled = (code) => (value(code) - z1) / (z2 - z1);
  } else if (stretch === "linear") {
    const [min, max] = [value(low), value(high)];
    scaled = (code) => (value(code) - min) / (max - min || 1);
  } else {
    const [min, max] = [Math.max(low * stamp.scale, Math.asinh(-2)), Math.max(high * stamp.scale, Math.asinh(5))];
    scaled = (code) => (code * stamp.scale - min) / (max - min);
  }
  const table = new Uint8ClampedArray(65536);
  for (let code = low; code <= high; code++) table[code + 32768] = 255 * scaled(code);
  return (stamp[key] = table);
}

const scratch = document.createElement("canvas");

/** Draw a stamp into a square of a canvas, first row at the bottom, zoomed about the target. */
export function draw(canvas, stamp, { stretch, zoom = 1, left = 0, side = canvas.width, marks = false, pixelScale }) {
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.fillStyle = "#05070a";
  context.fillRect(left, 0, side, side);
  if (!stamp) {
    context.fillStyle = "#b3bfce";
    context.font = `${Math.round(side / 9)}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.fillText("none", left + side / 2, side / 2);
    return;
  }
  const [height, width] = stamp.shape;
  const table = levels(stamp, stretch);
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const code = stamp.codes[y * width + x];
      const level = table[code + 32768];
      pixels[(height - 1 - y) * width + x] =
        code === MISSING ? MISSING_COLOUR : 0xff000000 | (level << 16) | (level << 8) | level;
    }
  }
  scratch.width = width;
  scratch.height = height;
  scratch.getContext("2d").putImageData(image, 0, 0);
  const field = Math.max(width, height) / zoom;
  context.save();
  context.beginPath();
  context.rect(left, 0, side, side);
  context.clip();
  const scale = side / field;
  context.drawImage(
    scratch,
    left + side / 2 - (width / 2) * scale, side / 2 - (height / 2) * scale, width * scale, height * scale,
  );
  if (marks) {
    // Beside the target, never over it.
    context.strokeStyle = "#f0e442";
    context.lineWidth = Math.max(1, side / 160);
    const [middle, gap, length] = [side / 2, side * 0.1, side * 0.07];
    context.beginPath();
    context.moveTo(left + middle + gap, middle);
    context.lineTo(left + middle + gap + length, middle);
    context.moveTo(left + middle, middle - gap);
    context.lineTo(left + middle, middle - gap - length);
    context.stroke();
    if (pixelScale) drawBar(context, left, side, scale / pixelScale);
  }
  context.restore();
}

/** A bar of 1, 2 or 5 times a power of ten arcseconds, at most a third of the side long. */
function drawBar(context, left, side, pixelsPerArcsec) {
  const most = (0.3 * side) / pixelsPerArcsec;
  const power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].find((step) => step * power <= most) * power;
  const [x, y] = [left + side * 0.05, side * 0.95];
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x + length * pixelsPerArcsec, y);
  context.stroke();
  context.fillStyle = context.strokeStyle;
  context.font = `${Math.round(side / 22)}px system-ui, sans-serif`;
  context.textAlign = "left";
  context.fillText(`${Number(length.toPrecision(1))}″`, x, y - side * 0.02);
}

/** Three stamps beside each other in one canvas. */
export function drawStrip(canvas, stamps, options) {
  const side = canvas.height;
  stamps.forEach((stamp, k) => draw(canvas, stamp, { ...options, left: k * side, side: side - (k < 2 ? 1 : 0) }));
}
