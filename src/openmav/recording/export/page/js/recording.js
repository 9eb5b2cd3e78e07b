// ---- the recording: arrays and texts, as pack.py packed them ----

const ARRAYS = { f8: Float64Array, f4: Float32Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array, i4: Int32Array, i2: Int16Array };

async function unpacked(text) {
  const binary = atob(text.trim()), bytes = new Uint8Array(binary.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = binary.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  return new Recording(header, buffer, 4 + length);
}

class Recording {
  constructor(header, buffer, start) {
    this.header = header;
    this.model = header.model;
    this.branches = header.branches;
    this.layers = header.model.layers;
    this.heads = header.model.heads;
    this.arrays = new Map(Object.entries(header.arrays).map(([name, [kind, offset, shape]]) => {
      const size = shape.reduce((a, b) => a * b, 1);
      return [name, { data: new ARRAYS[kind](buffer, start + offset, size), shape }];
    }));
  }

  has(name) { return this.arrays.has(name); }
  data(name) { return this.arrays.get(name).data; }

  // The row of an array [steps, ...]: a view, not a copy.
  row(name, step) {
    const { data, shape } = this.arrays.get(name);
    const size = data.length / shape[0];
    return data.subarray(step * size, (step + 1) * size);
  }

  value(name, step) { return this.data(name)[step]; }
  text(name, step) { return this.header.texts[this.value(name, step)]; }
  textAt(index) { return this.header.texts[index]; }

  steps(branch) { return this.data(`branch${branch}.steps`); }

  prompt(branch) {
    const ids = this.data(`branch${branch}.prompt.ids`);
    return [...this.data(`branch${branch}.prompt`)].map((index, at) => ({ text: this.textAt(index), id: ids[at] }));
  }

  forced(step) { return (this.value("flags", step) & 1) === 1; }
  special(step) { return (this.value("flags", step) & 2) === 2; }
  context(step) { return this.header.contexts[this.value("context", step)]; }

  // Whether a measure [steps, layers, ...] was recorded at a step.
  knows(measure, step) { return this.has(`${measure}.known`) && this.value(`${measure}.known`, step) === 1; }
  missing(measure, layer) { return (this.model.missing[measure] || {})[layer] || null; }
  headsOf(layer) { return layer < this.model.layer_heads.length ? this.model.layer_heads[layer] : this.heads; }

  // The attention to each token when a step was made, as attention_code packs it: of a head, or of the mean, which is head -1.
  attention(step, layer, head) {
    if (!this.has("attention")) return null;
    const start = this.value("attention.start", step), tokens = this.value("attention.tokens", step);
    if (start < 0 || layer < 0 || layer >= this.layers) return null;
    const from = start + (layer * (this.heads + 1) + head + 1) * tokens;
    return this.data("attention").subarray(from, from + tokens);
  }

  whyNoAttention(step, layer, head) {
    if (this.header.attention.why) return this.header.attention.why;
    const missing = this.missing("attention_rows", layer);
    if (missing) return missing;
    if (this.value("attention.start", step) < 0) return this.header.attention.why_not;
    if (head < 0 && this.value("attention.partial", step)) return "only the largest entries of each head are recorded here; choose a head";
    return head >= this.headsOf(layer) ? "no such head" : "NaN or infinity in this row";
  }

  whyNo(measure, step, layer) {
    const said = this.header.measures[measure] || this.header.more[measure];
    if (said.why) return said.why;
    return this.missing(measure, layer) || (this.knows(measure, step) ? null : "not captured for this token");
  }
}
