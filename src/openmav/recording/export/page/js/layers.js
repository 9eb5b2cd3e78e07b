// ---- what each layer did: norms and the entropy of its attention, each with its axis ----

const COLUMNS = [ // measure, title, colour
  ["residual_norm", "Residual norm", "residual"],
  ["attention_norm", "Attention norm", "attention"],
  ["mlp_norm", "MLP norm", "mlp"],
  ["attention_entropy", "Attention entropy", "entropy"],
];

const HEADS = [["attention_entropy", "entropy"], ["relative_attention_entropy", "relative entropy"], ["sink_share", "attention sink"]]; // measure, title

class Layers {
  constructor(state) {
    this.state = state;
    this.run = state.run;
    this.grid = find("layers-grid");
    this.rows = [];
    this.build();
    this.grid.addEventListener("click", (event) => this.choose(event.target.closest("[data-layer]")));
    onHover(this.grid, (event) => this.about(event.target.closest("[data-layer]")));
    this.canvas.addEventListener("pointerdown", (event) => this.chooseHead(event));
    onHover(this.canvas, (event) => this.aboutHead(event));
    state.onChange((changed) => {
      if (["branch", "t", "layer", "head", "heads", "tint", "size", "theme"].some((name) => changed.has(name))) this.draw();
    });
  }

  build() {
    const layers = Array.from({ length: this.run.layers }, (_, at) => this.run.layers - 1 - at);
    this.grid.append(this.column("layer", "", "", layers, (layer) => make("span", { className: "number", textContent: String(layer) })));
    for (const [measure, title, hue] of COLUMNS) {
      this.grid.append(this.column(measure, title, this.end(measure), layers, () => make("span", { className: `bar ${hue}` }, make("i"), make("s", { hidden: true }), make("b"))));
    }
    this.canvas = make("canvas", { id: "heads" });
    this.canvas.setAttribute("aria-hidden", "true");
    const heads = make("div", { className: "column heads" }, this.title("heads", "Heads"), this.canvas, make("div", { className: "end" }, make("span", { textContent: "0" }), make("span", { textContent: `head ${this.run.heads - 1}` })));
    this.grid.append(heads);
    this.shown = HEADS.filter(([measure]) => this.run.has(measure));
    heads.hidden = find("heads-choice").hidden = !this.shown.length || !this.run.heads;
    find("heads-choice").hidden ||= this.shown.length < 2;
    find("heads-of").replaceChildren(...this.shown.map(([value, textContent]) => make("option", { value, textContent })));
    find("heads-of").addEventListener("change", (event) => this.state.set({ heads: event.target.value }));
    if (this.shown.length) this.state.values.heads = this.shown[0][0];
  }

  title(term, text) {
    return make("h3", { textContent: text, tabIndex: text ? 0 : -1, data: text ? { term } : {} });
  }

  // The end of a column's axis: the most of the whole run, so that bars can be compared while scrubbing.
  end(measure) {
    const { most, why, decimals } = this.run.header.measures[measure];
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
    const why = name === "layer" ? null : this.run.header.measures[name].why;
    const axis = make("div", { className: "end" }, make("span", { textContent: end ? "0" : "" }), make("span", { textContent: end }));
    if (why) return make("div", { className: `column ${name}` }, this.title(name, title), make("p", { className: "note", textContent: `none: ${why}` }));
    return make("div", { className: `column ${name}` }, this.title(name, title), ...cells, axis);
  }

  draw() {
    const step = this.state.step, { layer, t } = this.state.values;
    const base = COLUMNS.some(([measure]) => Number.isFinite(this.base(measure, step, layer))) ? " · | baseline" : "";
    put(find("layers-note"), step < 0 ? "no token yet" : `at token ${t} · ${this.run.header.norm} · axes end at the run’s most${base}`);
    COLUMNS.forEach(([measure], at) => {
      if (!this.run.header.measures[measure].why) this.fill(measure, this.rows[at + 1], step);
    });
    for (const cells of this.rows) cells.forEach((cell) => cell.classList.toggle("chosen", Number(cell.dataset.layer) === layer));
    if (this.shown.length) this.paint(step);
  }

  value(measure, step, layer) {
    return this.run.row(measure === "attention_entropy" ? `${measure}.mean` : measure, step)[layer];
  }

  // The same of the model without its interventions; NaN where that is not known.
  base(measure, step, layer) {
    return step >= 0 && this.run.has(`${measure}.base`) ? this.run.row(`${measure}.base`, step)[layer] : NaN;
  }

  fill(measure, cells, step) {
    const { most, decimals } = this.run.header.measures[measure];
    for (const cell of cells) {
      const layer = Number(cell.dataset.layer), value = step < 0 ? NaN : this.value(measure, step, layer);
      const none = step < 0 || (Number.isNaN(value) && this.run.whyNo(measure, step, layer));
      cell.firstChild.style.width = Number.isFinite(value) && most > 0 ? `${clamp(value / most, 0, 1) * 100}%` : "0";
      put(cell.lastChild, none ? "none" : fixed(value, decimals));
      cell.classList.toggle("none", Boolean(none));
      const base = this.base(measure, step, layer);
      cell.children[1].hidden = !(Number.isFinite(base) && most > 0);
      cell.children[1].style.marginLeft = `${clamp(base / most, 0, 1) * 100}%`;
    }
  }

  paint(step) {
    const width = Math.floor(this.canvas.parentElement.clientWidth), row = rowHeight();
    const context = sheet(this.canvas, width, row * this.run.layers);
    if (!context || step < 0) return;
    const { heads: measure } = this.state.values, values = this.run.row(measure, step), wide = width / this.run.heads;
    const shares = measure !== "attention_entropy";
    for (let layer = 0; layer < this.run.layers; layer++) {
      for (let head = 0; head < this.run.headsOf(layer); head++) {
        const value = values[layer * this.run.heads + head], x = head * wide, y = (this.run.layers - 1 - layer) * row;
        const at = !shares ? stepOf(value) : value === NOTHING ? -1 : heatLevel(shareOf(value)), gap = wide > 6 ? 1 : 0;
        context.fillStyle = colour(at < 0 ? "frame" : `${shares ? "heat" : "surprise"}-${at}`);
        if (at < 0) context.fillRect(x + wide / 2 - 1, y + row / 2 - 1, 2, 2);
        else context.fillRect(x, y, wide - gap, row - 1);
      }
    }
    this.cursor(context, wide, row);
  }

  cursor(context, wide, row) {
    const { layer, head } = this.state.values, y = (this.run.layers - 1 - layer) * row;
    context.strokeStyle = colour("accent");
    context.lineWidth = 2;
    if (head < 0) context.strokeRect(1, y, wide * this.run.heads - 2, row - 1);
    else context.strokeRect(head * wide + 0.5, y, wide - 1, row - 1);
  }

  choose(cell) {
    if (cell) this.state.set({ layer: Number(cell.dataset.layer) });
  }

  headAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const head = Math.floor((event.clientX - box.left) / box.width * this.run.heads);
    const layer = this.run.layers - 1 - Math.floor((event.clientY - box.top) / rowHeight());
    return head >= 0 && layer >= 0 && head < this.run.headsOf(layer) ? { layer, head } : null;
  }

  chooseHead(event) {
    const at = this.headAt(event);
    if (at) this.state.set({ ...at, tint: "attention" });
  }

  about(cell) {
    if (!cell || cell.dataset.measure === "layer" || this.state.step < 0) return null;
    const layer = Number(cell.dataset.layer), measure = cell.dataset.measure;
    const value = this.value(measure, this.state.step, layer), why = this.run.whyNo(measure, this.state.step, layer);
    const said = Number.isNaN(value) && why ? `none: ${why}` : fixed(value, this.run.header.measures[measure].decimals);
    const base = this.base(measure, this.state.step, layer), baseline = Number.isNaN(base) ? [] : [["baseline", fixed(base, this.run.header.measures[measure].decimals)]];
    return [`Layer ${layer} at token ${this.state.values.t}`, [COLUMNS.find(([name]) => name === measure)[1], said], ...baseline];
  }

  aboutHead(event) {
    const at = this.headAt(event);
    if (!at || this.state.step < 0) return null;
    const value = (measure) => this.run.row(measure, this.state.step)[at.layer * this.run.heads + at.head];
    const said = (measure) => (measure === "attention_entropy" ? `${fixed(value(measure), 2)} nats` : percentOf(value(measure)));
    const mean = (measure) => (measure === "attention_entropy" ? [] : [[`mean of the layer`, percentOf(this.run.row(`${measure}.mean`, this.state.step)[at.layer])]]);
    return [`Layer ${at.layer} head ${at.head}`, ...this.shown.flatMap(([measure, title]) => [[title, said(measure)], ...mean(measure)]), "Click to see where it looks."];
  }
}
