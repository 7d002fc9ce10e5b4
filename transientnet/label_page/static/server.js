// What the server knows, asked for by number. The token is part of every address, this page's included.

export class Refused extends Error {}

async function ask(path, options) {
  const response = await fetch(path, options);
  if (!response.ok) {
    const body = await response.json().catch(() => ({ error: response.statusText }));
    throw response.status < 500 ? new Refused(body.error) : new Error(body.error);
  }
  return response;
}

/** What went wrong, for the person who waits: fetch itself says only that it failed. */
export const reason = (error) =>
  error instanceof TypeError ? "The server cannot be reached: is it still running?" : `${error.message}.`;

export const get = async (path) => (await ask(path)).json();

export const post = async (path, body) =>
  (await ask(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  })).json();

const KEPT = 1500;
const PER_REQUEST = 48;
const kept = new Map(); // row -> promise of a candidate, oldest use first
let wanted = [];

/** Promise of { row, id, flags, …facts, stamps } ; requests of one moment travel together. */
export function candidate(row) {
  const known = kept.get(row);
  if (known) {
    kept.delete(row);
    kept.set(row, known);
    return known;
  }
  const promise = new Promise((resolve, reject) => {
    if (wanted.length === 0) setTimeout(fetchWanted, 15);
    wanted.push({ row, resolve, reject });
  });
  promise.catch(() => kept.delete(row));
  kept.set(row, promise);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return promise;
}

function fetchWanted() {
  const all = wanted;
  wanted = [];
  for (let start = 0; start < all.length; start += PER_REQUEST) {
    const part = all.slice(start, start + PER_REQUEST);
    ask(`api/stamps?rows=${part.map((one) => one.row).join(",")}`)
      .then((response) => response.arrayBuffer())
      .then((buffer) => {
        const found = unpack(buffer);
        part.forEach((one, k) => one.resolve(found[k]));
      })
      .catch((error) => part.forEach((one) => one.reject(error)));
  }
}

function unpack(buffer) {
  const view = new DataView(buffer);
  const text = new TextDecoder();
  const json = (start, length) => JSON.parse(text.decode(new Uint8Array(buffer, start, length)));
  const found = [];
  for (let at = 0; at < buffer.byteLength; ) {
    const [about, packed] = [view.getUint32(at, true), view.getUint32(at + 4, true)];
    const start = at + 8 + about;
    const header = view.getUint32(start, true);
    const pixels = start + 4 + header;
    const stamps = json(start + 4, header).map(
      (s) => s && { ...s, codes: new Int16Array(buffer, pixels + s.offset, s.shape[0] * s.shape[1]) },
    );
    found.push({ ...json(at + 8, about), stamps });
    at = start + packed;
  }
  return found;
}
