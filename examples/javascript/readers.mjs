// Stamps of one or many candidates out of a file's bytes: FITS, NumPy, Avro alert packets. In Node and browsers.
//
//   for (const { id, width, height, stamps, fwhm } of await readCandidates("alert.avro", bytes)) …
//
// `stamps` is what a raw model takes: a Float32Array of (3, height, width), science, reference, difference, NaN
// where a pixel or a stamp is missing. `fwhm` is the seeing in pixels, 0 where unknown.

const CHANNELS = ["science", "reference", "difference"];

/** What is known of surveys by name: pixel scale in arcsec, usual seeing and side of a stamp in pixels. */
export const SURVEYS = [
  { name: "ZTF", recognise: ["^ztf\\b", "^ZTF\\d\\d[a-z]", "\\bztf\\b", "Zwicky"], pixel_scale: 1.01, fwhm: 2.0, stamp_size: 63 },
  { name: "LSST", recognise: ["\\blsst\\b", "\\brubin\\b", "\\bCUTMINX\\b"], pixel_scale: 0.2, packet_order: ["difference", "science", "reference"] },
  { name: "WINTER", recognise: ["\\bwinter\\b", "^WNTR\\d\\d"], pixel_scale: 1.108, stamp_size: 81 },
  { name: "PGIR", recognise: ["\\bpgir", "^PGIR\\d\\d", "gattini"], pixel_scale: 4.35, stamp_size: 61 },
  { name: "TURBO", recognise: ["\\bturbo\\b", "^TRBO\\d\\d"] },
  { name: "DECam", recognise: ["\\bdesirt\\b", "\\bdecam\\b", "\\bdecat\\b", "^c4d_"], pixel_scale: 0.263 },
  { name: "ATLAS", recognise: ["\\batlas\\b", "^ATLAS\\d\\d"], pixel_scale: 1.86 },
];

/** Candidates of a file: FITS or NumPy (gzipped or not), or an Avro packet. */
export async function readCandidates(name, bytes) {
  const data = startsWith(bytes, "\x1f\x8b") ? await inflate(bytes, "gzip") : bytes;
  const id = name.replace(/^.*[/\\]/, "").replace(/\.(gz|fz|fits|fit|npy|avro)\b/gi, "");
  if (startsWith(data, "SIMPLE  =")) return fitsCandidates(readFits(data), id);
  if (startsWith(data, "\x93NUMPY")) return stackCandidates(readNpy(data), id, {}, String);
  if (startsWith(data, "Obj\x01")) return avroCandidates(data, id);
  if (data[0] === 0) return [await framedCandidate(data, id)];
  throw new Error(`${name}: neither FITS nor NumPy nor an Avro packet`);
}

// ---------------------------------------------------------------- bytes

function startsWith(bytes, text) {
  return [...text].every((letter, i) => bytes[i] === letter.charCodeAt(0));
}

function latin(bytes, from, to) {
  return String.fromCharCode(...bytes.subarray(from, to));
}

/** Unpack "gzip" or "deflate-raw". */
async function inflate(bytes, format) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(format));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

const GET = { f4: "getFloat32", f8: "getFloat64", i1: "getInt8", i2: "getInt16", i4: "getInt32", u1: "getUint8", u2: "getUint16", u4: "getUint32", i8: "getBigInt64", u8: "getBigUint64" };

/** `count` numbers of a type such as "f4". */
function numbers(bytes, at, count, type, little) {
  const [view, size] = [viewOf(bytes), Number(type[1])];
  if (!GET[type] || at + count * size > bytes.length) throw new Error(`no ${count} numbers of type ${type} here`);
  return Float64Array.from({ length: count }, (_, i) => Number(view[GET[type]](at + i * size, little)));
}

// ---------------------------------------------------------------- FITS

const BLOCK = 2880;
const TYPES = { 8: "u1", 16: "i2", 32: "i4", 64: "i8", "-32": "f4", "-64": "f8" };

/** HDUs: { name, header, comments, shape, pixels }; the shape is as in NumPy, and empty where there are no pixels. */
export function readFits(bytes) {
  const hdus = [];
  for (let at = 0; at + BLOCK <= bytes.length; ) {
    const [header, comments] = [{}, {}];
    for (let ended = false; !ended; at += BLOCK) {
      if (at + BLOCK > bytes.length) throw new Error("a FITS header without an end");
      for (const card of latin(bytes, at, at + BLOCK).match(/.{80}/gs)) {
        if ((ended ||= card.startsWith("END     "))) break;
        if (card.slice(8, 10) !== "= ") continue;
        const [, text, plain, comment] = card.slice(10).match(/^\s*(?:'((?:[^']|'')*)'|([^/']*))(?:\s*\/(.*))?/s);
        const [key, word] = [card.slice(0, 8).trim(), (plain ?? "").trim()];
        const number = /^[-+.\dDE]+$/.test(word) ? Number(word.replace("D", "E")) : NaN;
        header[key] ??= text !== undefined ? text.replaceAll("''", "'").trimEnd() : Number.isNaN(number) ? word === "T" : number;
        comments[key] ??= comment ?? "";
      }
    }
    if (header.ZIMAGE) throw new Error("compressed FITS images (.fits.fz) cannot be read here: use funpack");
    const axes = Array.from({ length: header.NAXIS ?? 0 }, (_, i) => header[`NAXIS${i + 1}`]).reverse();
    const count = axes.length ? axes.reduce((product, length) => product * length, 1) : 0;
    const size = ((header.PCOUNT ?? 0) + count) * (Math.abs(header.BITPIX) / 8);
    const image = count > 0 && (header.SIMPLE || header.XTENSION === "IMAGE");
    const pixels = image ? scaled(numbers(bytes, at, count, TYPES[header.BITPIX], false), header) : null;
    const name = [header.EXTNAME, header.HDUNAME, header.STAMP_TYPE, header.IMAGETYP].find((each) => typeof each === "string") ?? "";
    hdus.push({ name: name.trim(), header, comments, shape: image ? axes : [], pixels });
    at += Math.ceil(size / BLOCK) * BLOCK;
  }
  // A primary header without pixels holds for all extensions.
  const first = hdus[0];
  for (const hdu of first.pixels ? [] : hdus.slice(1)) {
    hdu.header = { ...first.header, ...hdu.header };
    hdu.comments = { ...first.comments, ...hdu.comments };
  }
  return hdus;
}

function scaled(pixels, { BLANK, BSCALE = 1, BZERO = 0, BITPIX }) {
  if (BITPIX > 0 && BLANK !== undefined) pixels = pixels.map((value) => (value === BLANK ? NaN : value));
  return BSCALE === 1 && BZERO === 0 ? pixels : pixels.map((value) => value * BSCALE + BZERO);
}

const WORDS = {
  science: "science|istamp|sstamp|sci|scim|new|search|srch|target|targ|reduced|red|calexp|obs",
  reference: "reference|rstamp|tstamp|refr|ref|template|templ|tmplt|tmpl|temp|tpl",
  difference: "difference|dstamp|differential|diff|dif|subtraction|subtracted|sub|scimref|residual|resid|hotpants|zogy|sfft",
};
const FILLER = "cutouts?|stamps?|thumbnails?|thumbs?|postage|images?|img|im|exp|fits|data|array|arr|pixels|pix|hdu|b";
const NAMED = Object.fromEntries(
  CHANNELS.map((channel) => [channel, new RegExp(`^(?:${FILLER})*(?:${WORDS[channel]})(?:${FILLER}|${WORDS[channel]}){0,4}$`)]),
);
const MASK = /(?:^|[\W_])(?:masks?|msk|bpm|badpix(?:els?)?|dq|flags?)(?:$|[\W_])/i;
const PSF = /^psf/i;
const OTHER = /^(?:unc|var|err|sigma|stddev|noise|rms|weight|wht|wgt|ivar|invvar|bkg|background|scorr|snr|score|kernel|exptime)/i;

/** Lower case, letters and digits only. */
const normalise = (name) => name.toLowerCase().replace(/[^a-z0-9]/g, "");
/** The channel that a name speaks of, or undefined. */
const channelOf = (name) => CHANNELS.find((channel) => NAMED[channel].test(normalise(name)));

function fitsCandidates(hdus, id) {
  const planes = hdus.filter((hdu) => hdu.pixels && !MASK.test(hdu.name) && !PSF.test(hdu.name) && !OTHER.test(hdu.name));
  const scalars = planes[0]?.header ?? {};
  const named = {};
  for (const hdu of planes) named[channelOf(hdu.name)] ??= hdu;
  delete named.undefined;
  if (planes.length > 1 && !named.science && planes.length === 3) CHANNELS.forEach((channel, i) => (named[channel] = planes[i]));
  if (named.science && named.science.shape.length === 2) {
    const images = Object.fromEntries(Object.entries(named).map(([channel, hdu]) => [channel, imageOf(hdu, hdus)]));
    return [candidate(images, id, { ...named.science.header })];
  }
  if (planes.length !== 1) throw new Error(`${planes.length} images: which is science, reference, difference is not clear`);
  return stackCandidates({ ...planes[0], facts: factsOf(planes[0]) }, id, scalars);
}

/** The first image of one stamp's file, with its mask and its PSF. */
function lone(bytes) {
  const hdus = readFits(bytes);
  const image = hdus.find((hdu) => hdu.shape.length === 2 && (hdu === hdus[0] || ![MASK, PSF, OTHER].some((kind) => kind.test(hdu.name))));
  if (!image) throw new Error("a cutout without an image");
  return imageOf(image, hdus);
}

function imageOf(hdu, hdus) {
  const [height, width] = hdu.shape;
  const facts = factsOf(hdu);
  const companions = (kind) => {
    const found = hdus.filter((other) => other.pixels && kind.test(other.name));
    const channel = channelOf(hdu.name);
    const own = found.filter((other) => channel && new RegExp(`(?:^|[\\W_])(?:${WORDS[channel]})`, "i").test(other.name));
    return own[0] ?? (found.length === 1 && !channelOf(found[0].name.replace(kind, "")) ? found[0] : undefined);
  };
  const psf = companions(PSF);
  if (!facts.fwhm && psf) facts.fwhm = psfFwhm(psf);
  const mask = companions(MASK);
  let pixels = hdu.pixels;
  if (mask && String(mask.shape) === String(hdu.shape)) {
    const bits = ["MP_BAD", "MP_NO_DATA"].map((key) => mask.header[key]).filter(Number.isInteger);
    const bad = bits.reduce((sum, bit) => sum | (1 << bit), 0) || -1;
    pixels = pixels.map((value, i) => (mask.pixels[i] & bad ? NaN : value));
  }
  return { width, height, pixels, ...facts };
}

/** Linear part of the WCS (degrees per pixel), pixel scale (arcsec), seeing (pixels); undefined where not given. */
function factsOf({ header, comments }) {
  const value = (key, otherwise) => (typeof header[key] === "number" ? header[key] : otherwise);
  const [step1, step2] = [value("CDELT1", 1), value("CDELT2", 1)];
  let matrix;
  if (["CD1_1", "CD1_2", "CD2_1", "CD2_2"].some((key) => key in header)) {
    matrix = [value("CD1_1", 0), value("CD1_2", 0), value("CD2_1", 0), value("CD2_2", 0)];
  } else if (["PC1_1", "PC1_2", "PC2_1", "PC2_2"].some((key) => key in header)) {
    matrix = [value("PC1_1", 1) * step1, value("PC1_2", 0) * step1, value("PC2_1", 0) * step2, value("PC2_2", 1) * step2];
  } else if ("CDELT1" in header && "CDELT2" in header) {
    const turn = (value("CROTA2", 0) * Math.PI) / 180;
    matrix = [step1 * Math.cos(turn), -step2 * Math.sin(turn), step1 * Math.sin(turn), step2 * Math.cos(turn)];
  }
  const per = { arcsec: 3600, arcmin: 60 }[String(header.CUNIT1 ?? "deg").trim().toLowerCase()] ?? 1;
  matrix = matrix?.map((each) => each / per);
  let scale = matrix && Math.sqrt(Math.abs(determinant(matrix))) * 3600;
  if (!(scale > 5e-3 && scale < 600)) matrix = scale = undefined;
  for (const key of ["PIXSCALE", "PIXSCAL1", "PIXELSCALE", "PLATESCL", "SECPIX"]) scale ??= value(key);
  const keys = { PSF_FWHM: 1, PSFFWHM: 1, FWHM_PX: 1, FWHMPX: 1, FWHM_PIX: 1, MEDFWHM: 1, FWHMMED: 1, L1FWHM: scale, FWHM: 1, SEEING: scale };
  for (const [key, usual] of Object.entries(keys)) {
    const comment = comments[key]?.toLowerCase() ?? "";
    const unit = /\barc[ -]?s|\basec\b|"/.test(comment) ? scale : /\b(?:px|pxl|pix(?:els?)?)\b/.test(comment) ? 1 : usual;
    const fwhm = value(key, NaN) / unit;
    if (fwhm > 0.3 && fwhm < 200) return { matrix, scale, fwhm };
  }
  return { matrix, scale, fwhm: undefined };
}

const determinant = ([a, b, c, d]) => a * d - b * c;

/** FWHM in pixels of a PSF image: of the circle with the area above half maximum, on a grid eight times as fine. */
function psfFwhm({ shape: [height, width], pixels }) {
  const fine = 8;
  const clean = pixels.map((value) => (Number.isFinite(value) ? value : 0));
  // Trigonometric interpolation along one axis: `length` samples to `fine` times as many.
  const weights = (length) => {
    const half = Math.floor(length / 2);
    return Array.from({ length: fine * length }, (_, at) =>
      Float64Array.from({ length }, (_, from) => {
        let sum = 0;
        for (let wave = -half; wave < length - half; wave++) sum += Math.cos((2 * Math.PI * wave * (at / fine - from)) / length);
        return sum / length;
      }),
    );
  };
  const [across, down] = [weights(width), weights(height)];
  const rows = across.map((weight) =>
    Float64Array.from({ length: height }, (_, y) => weight.reduce((sum, each, x) => sum + each * clean[y * width + x], 0)),
  );
  const values = down.flatMap((weight) => rows.map((row) => weight.reduce((sum, each, y) => sum + each * row[y], 0)));
  const peak = values.reduce((highest, value) => Math.max(highest, value), 0);
  const fwhm = (2 * Math.sqrt(values.filter((value) => value >= peak / 2).length / Math.PI)) / fine;
  return peak > 0 && fwhm > 0.3 && fwhm < Math.min(width, height) ? fwhm : undefined;
}

// ---------------------------------------------------------------- NumPy, cubes and stacks

function readNpy(bytes) {
  const [wide, view] = [bytes[6] > 1, viewOf(bytes)];
  const start = wide ? 12 : 10;
  const at = start + (wide ? view.getUint32(8, true) : view.getUint16(8, true));
  const text = latin(bytes, start, at);
  const [, order, type] = text.match(/'descr':\s*'([<>|=])([a-z]\d)'/) ?? [];
  const shape = text.match(/'shape':\s*\(([^)]*)\)/)?.[1].split(",").filter((each) => each.trim()).map(Number);
  if (!type || !shape || /'fortran_order':\s*True/.test(text)) throw new Error(`a NumPy array that cannot be read here: ${text.trim()}`);
  const kind = type === "b1" ? "u1" : type;
  return { shape, pixels: numbers(bytes, at, shape.reduce((product, each) => product * each, 1), kind, order !== ">") };
}

/** Arrays (H, W), (3, H, W), (N, 3, H, W), or with the channels last. */
function stackCandidates({ shape, pixels, facts = {} }, id, scalars, many = (row) => `${id}_${row}`) {
  while (shape.length > 2 && shape[0] === 1) shape = shape.slice(1);
  if (shape.length === 2) return [candidate({ science: { height: shape[0], width: shape[1], pixels, ...facts } }, id, scalars)];
  const last = shape.at(-3) !== 3 && shape.at(-1) === 3;
  const [height, width] = last ? shape.slice(-3, -1) : shape.slice(-2);
  if (shape.length > 4 || (!last && shape.at(-3) !== 3)) throw new Error(`an array of shape (${shape}) is no triplet (3, H, W)`);
  const size = height * width;
  const total = pixels.length / (3 * size);
  return Array.from({ length: total }, (_, row) => {
    const own = pixels.subarray(3 * size * row, 3 * size * (row + 1));
    const plane = (c) => (last ? Float64Array.from({ length: size }, (_, i) => own[3 * i + c]) : own.subarray(c * size, (c + 1) * size));
    const images = Object.fromEntries(CHANNELS.map((channel, c) => [channel, { width, height, pixels: plane(c), ...facts, matrix: undefined }]));
    return candidate(images, total > 1 ? many(row) : id, scalars);
  });
}

// ---------------------------------------------------------------- Avro

async function avroCandidates(bytes, id) {
  const cursor = { bytes, at: 4, view: viewOf(bytes) };
  const metadata = read({ type: "map", values: "bytes" }, cursor, {});
  const sync = latin(bytes, cursor.at, (cursor.at += 16));
  const schema = JSON.parse(new TextDecoder().decode(metadata["avro.schema"]));
  const codec = metadata["avro.codec"] ? latin(metadata["avro.codec"]) : "null";
  if (codec !== "null" && codec !== "deflate") throw new Error(`Avro compressed with ${codec} cannot be read here`);
  const found = [];
  while (cursor.at < bytes.length) {
    const [count, size] = [Number(long(cursor)), Number(long(cursor))];
    const packed = bytes.subarray(cursor.at, cursor.at + size);
    const block = codec === "null" ? packed : await inflate(packed, "deflate-raw");
    const records = { bytes: block, at: 0, view: viewOf(block) };
    for (let i = 0; i < count; i++) {
      found.push(await recordCandidate(read(schema, records, {}), found.length ? `${id}_${found.length}` : id, schema.name));
    }
    cursor.at += size;
    if (latin(bytes, cursor.at, (cursor.at += 16)) !== sync) throw new Error("a block does not end with the file's sync marker");
  }
  return found;
}

/** A whole number; a BigInt only where a number would lose digits. */
function long(cursor) {
  let [value, scale] = [0n, 0n];
  for (;;) {
    if (cursor.at >= cursor.bytes.length) throw new Error("the file ends in the middle of a number");
    const byte = cursor.bytes[cursor.at++];
    value |= BigInt(byte & 127) << scale;
    if (byte < 128) break;
    if ((scale += 7n) > 63n) throw new Error("damaged number");
  }
  value = (value >> 1n) ^ -(value & 1n);
  return Number.isSafeInteger(Number(value)) ? Number(value) : value;
}

function take(cursor, size) {
  if (!(size >= 0 && cursor.at + size <= cursor.bytes.length)) throw new Error("the file ends too early");
  return cursor.bytes.subarray(cursor.at, (cursor.at += size));
}

/** Items of an array or map, block by block. */
function* items(cursor) {
  for (let count; (count = long(cursor)) !== 0; ) {
    if (count < 0) long(cursor);
    for (let i = Math.abs(count); i > 0; i--) yield;
  }
}

const PRIMITIVES = {
  null: () => null,
  boolean: (cursor) => take(cursor, 1)[0] !== 0,
  int: long,
  long,
  float: (cursor) => (take(cursor, 4), cursor.view.getFloat32(cursor.at - 4, true)),
  double: (cursor) => (take(cursor, 8), cursor.view.getFloat64(cursor.at - 8, true)),
  bytes: (cursor) => take(cursor, long(cursor)),
  string: (cursor) => new TextDecoder().decode(take(cursor, long(cursor))),
};

/** A value of a schema's type; `names` collects the types defined on the way. */
function read(type, cursor, names, space = "") {
  if (Array.isArray(type)) {
    const branch = type[long(cursor)];
    if (branch === undefined) throw new Error("damaged record");
    // The branches before it may define what a later field uses.
    type.forEach((each) => define(each, names, space));
    return read(branch, cursor, names, space);
  }
  if (typeof type === "string") {
    if (PRIMITIVES[type]) return PRIMITIVES[type](cursor);
    const known = names[type] ?? names[`${space}.${type}`];
    if (!known) throw new Error(`unknown type ${type}`);
    return read(known, cursor, names, space);
  }
  define(type, names, space);
  const kind = type.type;
  if (kind === "record") {
    space = type.namespace ?? space;
    return Object.fromEntries(type.fields.map((field) => [field.name, read(field.type, cursor, names, space)]));
  }
  if (kind === "array") {
    define(type.items, names, space);
    return Array.from(items(cursor), () => read(type.items, cursor, names, space));
  }
  if (kind === "map") return Object.fromEntries(Array.from(items(cursor), () => [PRIMITIVES.string(cursor), read(type.values, cursor, names, space)]));
  if (kind === "fixed") return take(cursor, type.size);
  if (kind === "enum") return type.symbols[long(cursor)];
  return read(kind, cursor, names, space);
}

function define(type, names, space) {
  if (typeof type !== "object" || Array.isArray(type)) return type;
  if (["array", "map"].includes(type.type)) define(type.items ?? type.values, names, space);
  if (!type.name || names[type.name] === type) return type;
  const own = type.namespace ?? space;
  names[type.name] = names[`${own}.${type.name}`] = type;
  if (type.type === "record") {
    for (const field of type.fields) for (const each of [field.type].flat()) define(each, names, own);
  }
  return type;
}

async function recordCandidate(record, id, hint) {
  const [scalars, stamps] = [{}, {}];
  (function flatten(value, prefix, depth) {
    for (const [key, each] of Object.entries(value)) {
      const name = prefix + key;
      if (each instanceof Uint8Array) stamps[channelOf(name)] ??= each;
      else if (each !== null && typeof each === "object" && !Array.isArray(each)) depth < 3 && flatten(each, `${name}.`, depth + 1);
      else if (!Array.isArray(each) && each !== null) scalars[name.split(".").at(-1)] ??= each;
    }
  })(record, "", 0);
  const images = {};
  for (const channel of CHANNELS) if (stamps[channel]?.length) images[channel] = await decode(stamps[channel]);
  return candidate(images, id, scalars, [hint]);
}

async function decode(bytes) {
  const data = startsWith(bytes, "\x1f\x8b") ? await inflate(bytes, "gzip") : bytes;
  if (!startsWith(data, "\x93NUMPY")) return lone(data);
  const { shape, pixels } = readNpy(data);
  return { height: shape[0], width: shape[1], pixels };
}

/** A packet without its schema (a zero byte, the schema's number, the record): its cutouts are found by their bytes. */
async function framedCandidate(bytes, id) {
  const [found, text] = [[], latinLong(bytes)];
  let at = 5;
  for (const { index, 0: magic } of text.matchAll(/SIMPLE {2}=|\x1f\x8b\x08/g)) {
    if (index < at) continue;
    for (let width = 1; width < 6; width++) {
      const before = bytes.subarray(index - width, index);
      if (before.at(-1) > 127 || !before.subarray(0, -1).every((byte) => byte > 127)) continue;
      const size = Number(long({ bytes, at: index - width }));
      if (!(size > 100 && index + size <= bytes.length && (magic[0] !== "S" || size % BLOCK === 0))) continue;
      found.push(bytes.subarray(index, (at = index + size)));
      break;
    }
  }
  const hint = found.length ? latin(found[0], 0, Math.min(2 * BLOCK, found[0].length)) : "";
  const order = surveyOf([hint])?.packet_order ?? CHANNELS;
  if (found.length !== order.length) throw new Error(`${found.length} cutouts in a packet without its schema, not ${order.length}`);
  const images = {};
  for (const [i, channel] of order.entries()) images[channel] = await decode(found[i]);
  const first = long({ bytes, at: 5 });
  return candidate(images, first > 10 ** 9 ? String(first) : id, {}, [hint]);
}

function latinLong(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += latin(bytes, at, Math.min(at + 8192, bytes.length));
  return text;
}

// ---------------------------------------------------------------- candidates

const surveyOf = (texts) => {
  for (const text of texts) {
    const found = text && SURVEYS.find((survey) => survey.recognise.some((pattern) => new RegExp(pattern, "i").test(text)));
    if (found) return found;
  }
};

function candidate(images, id, scalars, hints = []) {
  if (!images.science) throw new Error(`${id}: no science stamp`);
  const told = Object.fromEntries(Object.entries(scalars).reverse().map(([key, value]) => [normalise(key), value]));
  const first = (...names) => names.map((name) => told[name]).find((value) => value !== undefined && value !== "" && value !== 0);
  const number = (...names) => names.map((name) => Number(told[name])).find((value) => Number.isFinite(value) && ![-99, -999, -9999].includes(value));
  const group = first("objectid", "diaobjectid", "objectname", "object");
  const instrument = ["survey", "publisher", "telescop", "telescope", "instrume", "instrument", "origin", "filter"].map((name) => told[name]);
  const texts = [...hints, ...instrument].filter((text) => typeof text === "string");
  const survey = surveyOf(texts) ?? (instrument.slice(2, 6).some(Boolean) ? undefined : surveyOf([String(group ?? ""), id])) ?? {};
  const scale = Object.values(images).find((image) => image.scale)?.scale ?? survey.pixel_scale;
  const arcsec = number("fwhmarcsec", "psffwhmarcsec", "seeingarcsec");
  const fwhm = number("fwhmpx", "fwhmpix", "psffwhmpx", "seeingpx", "seeingpix") ?? (arcsec && scale ? arcsec / scale : undefined) ?? images.science.fwhm ?? images.difference?.fwhm ?? survey.fwhm ?? 0;
  const edges = cutOff(images.science, survey, number("xpos", "x", "ximage"), number("ypos", "y", "yimage"), number("mindtoedge", "edgedistance"));
  const [height, width] = [images.science.height + edges[0] + edges[1], images.science.width + edges[2] + edges[3]];
  const stamps = new Float32Array(3 * height * width).fill(NaN);
  CHANNELS.forEach((channel, c) => {
    if (!images[channel]) return;
    const image = orientedLike(images[channel], images.science.matrix);
    if (image.height !== images.science.height || image.width !== images.science.width) {
      throw new Error(`${id}: the ${channel} stamp is of another shape than the science stamp; pad it with NaN about its centre`);
    }
    for (let y = 0; y < image.height; y++) {
      const row = image.pixels.subarray(y * image.width, (y + 1) * image.width);
      stamps.set(row, (c * height + y + edges[0]) * width + edges[2]);
    }
  });
  const name = first("candid", "candidateid", "diasourceid", "alertid", "candidate", "detectionid", "sourceid", "id");
  return { id: String(name ?? id), survey: survey.name ?? "", width, height, stamps, fwhm };
}

/** Rows and columns that the edge of the chip took: [above, below, left, right]. */
function cutOff({ width, height }, survey, x, y, edge) {
  const size = survey.stamp_size ?? Math.max(width, height);
  const half = Math.floor(size / 2);
  const missing = [size - height, size - width];
  if (missing.every((each) => each === 0) || Math.min(...missing) < 0) return [0, 0, 0, 0];
  const edges = [];
  for (const [lacking, position] of [[missing[0], y], [missing[1], x]]) {
    const below = half - (Math.round(position) - 1);
    if (lacking === 0) edges.push(0, 0);
    else if (position === undefined) return [0, 0, 0, 0];
    else if (below > 0 && Math.abs(below - lacking) <= 1) edges.push(lacking, 0);
    else if (below <= 0 && (Math.abs(half - edge - lacking) <= 1 || (survey.stamp_size && missing[0] !== missing[1]))) edges.push(0, lacking);
    else return [0, 0, 0, 0];
  }
  return edges;
}

/** `image` in the orientation of `matrix`, where flips and quarter turns do it. */
function orientedLike(image, matrix) {
  if (!image.matrix || !matrix || String(image.matrix) === String(matrix)) return image;
  const [[a, b, c, d], whole] = [image.matrix, determinant(image.matrix)];
  const step = [d * matrix[0] - b * matrix[2], d * matrix[1] - b * matrix[3], a * matrix[2] - c * matrix[0], a * matrix[3] - c * matrix[1]].map((each) => each / whole);
  const length = Math.sqrt(Math.abs(determinant(step)));
  const exact = step.map((each) => each / length);
  const [xx, xy, yx, yy] = exact.map(Math.round);
  if (exact.some((each) => Math.abs(each - Math.round(each)) > Math.sin(Math.PI / 18)) || Math.abs(xx * yy - xy * yx) !== 1) return image;
  const { width, height, pixels } = image;
  const turned = xx === 0;
  const [wide, high] = turned ? [height, width] : [width, height];
  const [right, down] = turned ? [yx, xy] : [xx, yy];
  const moved = new Float64Array(pixels.length);
  for (let y = 0; y < high; y++) {
    for (let x = 0; x < wide; x++) {
      const [u, v] = [right < 0 ? wide - 1 - x : x, down < 0 ? high - 1 - y : y];
      moved[y * wide + x] = turned ? pixels[u * width + v] : pixels[v * width + u];
    }
  }
  return { ...image, width: wide, height: high, pixels: moved };
}
