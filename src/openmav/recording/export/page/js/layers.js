// ---- what each layer did: norms and the entropy of its attention, each with its axis ----

const COLUMNS = [ // measure, title, colour
  ["residual_norm", "Residual norm", "residual"],
  ["attention_norm", "Attention norm", "attention"],
  ["mlp_norm", "MLP norm", "mlp"],
  ["attention_entropy", "Attention entropy", "entropy"],
];

class Layers {
  constructor(state) {
    this.state = state;
    this.recording = state.recording;
    this.grid = find("layers-grid");
    this.rows = [];
    this.build();
    this.grid.addEventListener("click", (event) => this.choose(event.target.closest("[data-layer]")));
    onHover(this.grid, (event) => this.about(event.target.closest("[data-layer]")));
    this.canvas.addEventListener("pointerdown", (event) => this.chooseHead(event));
    onHover(this.canvas, (event) => this.aboutHead(event));
    state.onChange((changed) => {
      if (["branch", "t", "layer", "head", "tint", "size", "theme"].some((name) => changed.has(name))) this.draw();
    });
  }

  build() {
    const layers = Array.from({ length: this.recording.layers }, (_, at) => this.recording.layers - 1 - at);
    this.grid.append(this.column("layer", "", "", layers, (layer) => make("span", { className: "number", textContent: String(layer) })));
    for (const [measure, title, hue] of COLUMNS) {
      this.grid.append(this.column(measure, title, this.end(measure), layers, () => make("span", { className: `bar ${hue}` }, make("i"), make("b"))));
    }
    this.canvas = make("canvas", { id: "heads" });
    this.canvas.setAttribute("aria-hidden", "true");
    const heads = make("div", { className: "column heads" }, this.title("heads", "Heads"), this.canvas, make("div", { className: "end" }, make("span", { textContent: "0" }), make("span", { textContent: `head ${this.recording.heads - 1}` })));
    this.grid.append(heads);
    heads.hidden = Boolean(this.recording.header.measures.attention_entropy.why) || !this.recording.heads;
  }

  title(term, text) {
    return make("h3", { textContent: text, tabIndex: text ? 0 : -1, data: text ? { term } : {} });
  }

  // The end of a column's axis: the most of the whole run, so that bars can be compared while scrubbing.
  end(measure) {
    const { most, why, decimals } = this.recording.header.measures[measure];
    return why ? "" : `${fixed(most, Math.min(decimals, 1))}${measure === "attention_entropy" ? " nats" : ""}`;
  }

  column(name, title, end, layers, cell) {
    const cells = layers.map((layer) => {
      const element = cell(layer);
      element.dataset.layer = layer;
      element.dataset.measure = name;
      return element;
    });
    this.rows.push(cells);
    const why = name === "layer" ? null : this.recording.header.measures[name].why;
    const axis = make("div", { className: "end" }, make("span", { textContent: end ? "0" : "" }), make("span", { textContent: end }));
    if (why) return make("div", { className: `column ${name}` }, this.title(name, title), make("p", { className: "note", textContent: `none: ${why}` }));
    return make("div", { className: `column ${name}` }, this.title(name, title), ...cells, axis);
  }

  draw() {
    const step = this.state.step, { layer, t } = this.state.values;
    put(find("layers-note"), step < 0 ? "no token yet" : `at token ${t} · ${this.recording.header.norm} · each axis ends at the most of the run`);
    COLUMNS.forEach(([measure], at) => {
      if (!this.recording.header.measures[measure].why) this.fill(measure, this.rows[at + 1], step);
    });
    for (const cells of this.rows) cells.forEach((cell) => cell.classList.toggle("chosen", Number(cell.dataset.layer) === layer));
    if (this.recording.has("attention_entropy")) this.paint(step);
  }

  value(measure, step, layer) {
    return this.recording.row(measure === "attention_entropy" ? `${measure}.mean` : measure, step)[layer];
  }

  fill(measure, cells, step) {
    const { most, decimals } = this.recording.header.measures[measure];
    for (const cell of cells) {
      const layer = Number(cell.dataset.layer), value = step < 0 ? NaN : this.value(measure, step, layer);
      const none = step < 0 || (Number.isNaN(value) && this.recording.whyNo(measure, step, layer));
      cell.firstChild.style.width = Number.isFinite(value) && most > 0 ? `${clamp(value / most, 0, 1) * 100}%` : "0";
      put(cell.lastChild, none ? "none" : fixed(value, decimals));
      cell.classList.toggle("none", Boolean(none));
    }
  }

  paint(step) {
    const width = Math.floor(this.canvas.parentElement.clientWidth), row = rowHeight();
    const context = sheet(this.canvas, width, row * this.recording.layers);
    if (!context || step < 0) return;
    const values = this.recording.row("attention_entropy", step), wide = width / this.recording.heads;
    for (let layer = 0; layer < this.recording.layers; layer++) {
      for (let head = 0; head < this.recording.headsOf(layer); head++) {
        const nats = values[layer * this.recording.heads + head], x = head * wide, y = (this.recording.layers - 1 - layer) * row;
        const at = stepOf(nats), gap = wide > 6 ? 1 : 0;
        context.fillStyle = colour(at < 0 ? "frame" : `surprise-${at}`);
        if (at < 0) context.fillRect(x + wide / 2 - 1, y + row / 2 - 1, 2, 2);
        else context.fillRect(x, y, wide - gap, row - 1);
      }
    }
    this.cursor(context, wide, row);
  }

  cursor(context, wide, row) {
    const { layer, head } = this.state.values, y = (this.recording.layers - 1 - layer) * row;
    context.strokeStyle = colour("accent");
    context.lineWidth = 2;
    if (head < 0) context.strokeRect(1, y, wide * this.recording.heads - 2, row - 1);
    else context.strokeRect(head * wide + 0.5, y, wide - 1, row - 1);
  }

  choose(cell) {
    if (cell) this.state.set({ layer: Number(cell.dataset.layer) });
  }

  headAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const head = Math.floor((event.clientX - box.left) / box.width * this.recording.heads);
    const layer = this.recording.layers - 1 - Math.floor((event.clientY - box.top) / rowHeight());
    return head >= 0 && layer >= 0 && head < this.recording.headsOf(layer) ? { layer, head } : null;
  }

  chooseHead(event) {
    const at = this.headAt(event);
    if (at) this.state.set({ ...at, tint: "attention" });
  }

  about(cell) {
    if (!cell || cell.dataset.measure === "layer" || this.state.step < 0) return null;
    const layer = Number(cell.dataset.layer), measure = cell.dataset.measure;
    const value = this.value(measure, this.state.step, layer), why = this.recording.whyNo(measure, this.state.step, layer);
    const said = Number.isNaN(value) && why ? `none: ${why}` : fixed(value, this.recording.header.measures[measure].decimals);
    return [`Layer ${layer} at token ${this.state.values.t}`, [COLUMNS.find(([name]) => name === measure)[1], said]];
  }

  aboutHead(event) {
    const at = this.headAt(event);
    if (!at || this.state.step < 0) return null;
    const nats = this.recording.row("attention_entropy", this.state.step)[at.layer * this.recording.heads + at.head];
    return [`Layer ${at.layer} head ${at.head}`, ["entropy", `${fixed(nats, 2)} nats`], "Click to see where it looks."];
  }
}
