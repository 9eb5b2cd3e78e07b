// ---- panels of the selected token: sampling, health, neurons and experts, input attribution, a user's own measures ----

const GLYPHS = ["!", "✓", "–"], OWN_SHOWN = 16, INPUT_SHOWN = 24;

class Panel {
  constructor(state, id, measure) {
    this.state = state;
    this.run = state.run;
    this.more = this.run.header.more;
    this.measure = measure;
    this.section = find(id);
    this.body = find(`${id}-body`);
    this.section.hidden = !this.there();
    if (!this.there()) return;
    this.body.addEventListener("click", (event) => {
      const cell = event.target.closest("[data-layer]");
      if (cell) state.set({ layer: Number(cell.dataset.layer) });
    });
    state.onChange((changed) => {
      if (["branch", "t", "layer"].some((name) => changed.has(name))) this.draw();
    });
  }

  there() { return !this.more[this.measure].why; }

  draw() {
    const step = this.state.step, known = step >= 0 && (!this.measure || this.run.knows(this.measure, step));
    this.body.replaceChildren(...(known ? this.rows(step) : [make("p", { className: "note", textContent: step < 0 ? "no token yet" : "none: not captured for this token" })]));
  }
}

class Stages extends Panel {
  constructor(state) { super(state, "sampling", "sampling_stages"); }

  rows(step) {
    const names = this.run.row("stages.name", step), values = this.run.row("stages.value", step), head = ["stage", "tokens left", "kept of p", "", "entropy", "this token"];
    const rows = Array.from(names.keys()).filter((at) => this.run.textAt(names[at])).map((at) => {
      const [on, left, kept, entropy, chosen] = values.subarray(at * 5, at * 5 + 5), name = this.run.textAt(names[at]);
      if (!on) return make("li", { className: "off" }, cell("", name), cell("wide", "off: changes nothing"));
      return make("li", {}, cell("", name), cell("right", Number.isFinite(left) ? left.toLocaleString("en") : fixed(left, 0)), bar(kept, "probability"), cell("right", percent(kept)), cell("right", `${fixed(entropy, 2)}`), cell("right strong", percent(chosen)));
    });
    return [make("li", { className: "names" }, ...head.map((text, at) => cell(at === 0 ? "" : at === 2 ? "" : "right", text))), ...rows];
  }
}

class Distribution extends Panel {
  constructor(state) { super(state, "distribution", "distribution"); }
  rows(step) {
    const codes = this.run.row("distribution.p", step), { greedy } = this.run.context(step);
    return this.more.distribution.ranks.map((rank, at) => {
      const after = codes[at * 2 + 1];
      return make("li", {}, cell("right quiet", rank), bar(shareOf(codes[at * 2]), "probability"), cell("right", percentOf(codes[at * 2])), cell("right quiet", greedy ? "" : after === ZERO ? "cut" : `→ ${percentOf(after)}`));
    });
  }
}

class Health extends Panel {
  constructor(state) { super(state, "health", "health"); }
  draw() { this.body.replaceChildren(...(this.state.step < 0 ? [] : this.rows(this.state.step))); }
  rows(step) {
    const texts = this.run.row("health.text", step), good = this.run.row("health.good", step);
    return Array.from(good, (verdict, at) => make("li", { className: verdict ? "" : "warn" }, cell("", GLYPHS[verdict]), ...[0, 1, 2].map((part) => cell(part === 1 ? "right" : part ? "quiet" : "", this.run.textAt(texts[at * 3 + part])))));
  }
}

class Neurons extends Panel {
  constructor(state) { super(state, "neurons", "neurons"); }

  rows(step) {
    const layer = this.state.values.layer, values = this.run.row("neurons.value", step), ids = this.run.row("neurons.id", step), count = values.length / this.run.layers;
    put(find("neurons-title"), `Strongest neurons of layer ${layer}`);
    const places = Array.from({ length: count }, (_, at) => layer * count + at).filter((at) => ids[at] >= 0);
    if (!places.length) return [make("p", { className: "note", textContent: `none: ${this.run.missing("neurons", layer) || "no neurons in this layer"}` })];
    const most = Math.max(...places.map((at) => Math.abs(values[at]) || 0)) || 1;
    const known = !this.more.neurons.why_no_tokens;
    return [
      make("li", { className: "names" }, cell("", "neuron"), cell("both", "activation"), cell("right", ""), cell("", "▲ raises these tokens’ logits, by"), cell("", "▼ lowers these, by")),
      ...places.map((at) => make("li", {}, cell("quiet", `#${ids[at]}`), bar(values[at] / most, "", true), cell("right", signed(values[at])), ...[0, 1].map((way) => (known ? this.tokens(step, at, way) : cell("quiet", way ? "" : `none: ${this.more.neurons.why_no_tokens}`))))),
    ];
  }

  tokens(step, at, way) {
    const texts = this.run.row("neurons.token", step), logits = this.run.row("neurons.logit", step), each = texts.length / this.run.row("neurons.id", step).length / 2;
    const pairs = Array.from({ length: each }, (_, one) => at * 2 * each + way * each + one).filter((one) => this.run.textAt(texts[one]));
    if (!pairs.length) return cell("quiet", way ? "" : "none: another layer was selected when this token was made");
    return make("span", { className: "effects" }, ...pairs.map((one) => make("span", {}, make("bdi", { textContent: this.run.textAt(texts[one]) }), cell("quiet", ` ${signed(logits[one] / this.more.neurons.scale)}`))));
  }
}

class Router extends Panel {
  constructor(state) { super(state, "router", "router"); }
  rows(step) {
    const weights = this.run.row("router.weight", step), ids = this.run.row("router.id", step), count = weights.length / this.run.layers;
    return Array.from({ length: this.run.layers }, (_, at) => this.run.layers - 1 - at).map((layer) => {
      const places = Array.from({ length: count }, (_, at) => layer * count + at).filter((at) => ids[at] >= 0);
      const experts = places.map((at) => make("span", { className: "expert" }, cell("quiet", `#${ids[at]}`), cell("right", fixed(weights[at], 2)), bar(weights[at] / this.more.router.most, "mlp")));
      return make("li", { className: layer === this.state.values.layer ? "chosen" : "", data: { layer } }, cell("right quiet", String(layer)), ...(experts.length ? experts : [cell("quiet", `none: ${this.run.missing("router", layer) || "no experts"}`)]));
    });
  }
}

class Input extends Panel {
  constructor(state) {
    super(state, "input", null);
    const said = this.run.header.input;
    if (said) say(find("input-note"), "To the logit of ", [said.target], ` at token ${said.t} · ${said.method} · ${said.notes.join(" · ")}`);
  }

  there() { return Boolean(this.run.header.input); }
  rows() {
    const scores = this.run.data("input.score"), most = scores.reduce((best, one) => (Number.isFinite(one) ? Math.max(best, Math.abs(one)) : best), 0) || 1;
    const order = [...scores.keys()].sort((a, b) => Math.abs(scores[b]) - Math.abs(scores[a])).slice(0, INPUT_SHOWN).sort((a, b) => a - b);
    return order.map((at) => make("li", {}, cell("right quiet", String(at)), make("bdi", { textContent: this.run.text("input.token", at) }), bar(scores[at] / most, "", true), cell("right", signed(scores[at]))));
  }
}

class Own extends Panel {
  constructor(state) { super(state, "own", null); }
  there() { return this.more.own.length > 0; }
  rows(step) {
    return this.more.own.map(({ name, shape, why }, at) => {
      if (why) return make("li", {}, cell("", name), cell("quiet", `none: ${why}`));
      const whole = [...this.run.row(`own${at}`, step)], each = whole.length / (shape[0] || 1), byLayer = shape[0] === this.run.layers && this.run.layers > 1;
      const shown = byLayer ? whole.slice(this.state.values.layer * each, (this.state.values.layer + 1) * each) : whole;
      const numbers = shown.slice(0, OWN_SHOWN).map((one) => (Number.isInteger(one) ? String(one) : fixed(one, 3))).join("  ");
      return make("li", {}, cell("", `${name}${byLayer ? ` at layer ${this.state.values.layer}` : ""}`), cell("", numbers + (shown.length > OWN_SHOWN ? ` … ${shown.length} numbers` : "")));
    });
  }
}

PANELS.push(Stages, Distribution, Health, Neurons, Router, Input, Own);
