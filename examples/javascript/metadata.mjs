// The metadata of an ONNX file, which onnxruntime does not hand on: field 14 of its outermost message.

/** Name to value. */
export function readMetadata(bytes) {
  const metadata = {};
  for (const [field, from, to] of fields(bytes, 0, bytes.length)) {
    if (field !== 14) continue;
    const pair = {};
    for (const [key, low, high] of fields(bytes, from, to)) pair[key] = new TextDecoder().decode(bytes.subarray(low, high));
    metadata[pair[1]] = pair[2];
  }
  return metadata;
}

/** Number, beginning and end of each field of a protobuf message. */
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
