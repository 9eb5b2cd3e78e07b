// ---- where the logit comes from: a waterfall from the embedding over the layers to the logit ----

const AXIS = 44, NAMES_FOOT = 34; // px of the axis on the left, and of the names below

class Attribution {
  constructor(state) {
    this.state = state;
    this.run = state.run;
    this.said = this.run.header.more.attribution;
    find("attribution").hidden = Boolean(this.said.why);
    if (this.said.why) return;
    this.canvas = find("attribution-map");
    this.select = find("against");
    this.select.addEventListener("change", () => state.set({ against: Number(this.select.value) }));
    this.canvas.addEventListener("pointerdown", (event) => this.choose(event));
    onHover(this.canvas, (event) => this.about(event));
    state.onChange((changed) => {
      if (["branch", "t", "layer", "against", "size", "theme"].some((name) => changed.has(name))) this.draw();
    });
  }

  // Of the chosen token's logit, or of its lead over another token.
  value(name, index) {
    const row = this.run.row(`attribution.${name}`, this.state.step), from = index * this.said.count, { against } = this.state.values;
    return row[from] - (against ? row[from + against] : 0);
  }

  bars() {
    const names = this.said.parts, bars = [{ label: "embedding", value: this.value("whole", 0) }];
    for (let layer = 0; layer < this.run.layers; layer++) {
      for (const part of [0, 1]) bars.push({ layer, label: `layer ${layer} ${part ? "MLP" : "attention"}`, value: this.value("part", layer * 2 + part), part });
    }
    names.slice(1).forEach((name, at) => {
      const value = this.value("whole", at + 1);
      if (name !== "other" || value) bars.push({ label: name === "bias" ? "biases" : name === "rest" ? "rest (not explained)" : "other parts of layers", value });
    });
    let sum = 0;
    for (const bar of bars) [bar.from, sum] = [sum, sum + (Number.isFinite(bar.value) ? bar.value : 0)];
    return [...bars, { label: this.what(), value: this.value("whole", names.length), from: 0, whole: true }];
  }

  what() { return this.state.values.against ? "difference of the logits" : "logit"; }

  token(index) { return this.run.textAt(this.run.row("attribution.token", this.state.step)[index]); }

  options() {
    const step = this.state.step, ids = Array.from({ length: this.said.count }, (_, at) => at).filter((at) => !at || (this.token(at) && this.token(at) !== this.token(0)));
    this.select.replaceChildren(...ids.map((at) => make("option", { value: at, textContent: at ? this.token(at) : "nothing" })));
    if (!ids.includes(this.state.values.against)) this.state.values.against = 0;
    this.select.value = this.state.values.against;
    return step;
  }

  draw() {
    const known = this.state.step >= 0 && this.run.knows("attribution", this.state.step);
    this.canvas.parentElement.hidden = !known;
    if (!known) return say(find("attribution-note"), this.state.step < 0 ? "no token yet" : "none: not captured for this token");
    this.options();
    const bars = this.bars(), { against } = this.state.values, sum = (part) => fixed(bars.filter((one) => one.part === part && Number.isFinite(one.value)).reduce((a, b) => a + b.value, 0), 2);
    const whole = bars.at(-1).value, strongest = [...bars.slice(0, -1)].filter((one) => Number.isFinite(one.value)).sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, 3);
    say(find("attribution-note"), ...(Number.isFinite(whole) ? [[this.token(0)], ...(against ? [" minus ", [this.token(against)]] : []), ` has the ${this.what()} ${fixed(whole, 2)}: attention ${sum(0)}, MLPs ${sum(1)}, embedding ${signed(bars[0].value)} · most: ${strongest.map((one) => `${one.label} ${signed(one.value)}`).join(", ")}`] : [`none: ${this.run.missing("attribution", 0) || "the parts of this token’s logit are not known"}`]));
    this.paint(bars);
    return undefined;
  }

  layout(bars) {
    const width = Math.floor(this.canvas.parentElement.clientWidth), ends = bars.flatMap((one) => [one.from, one.from + (Number.isFinite(one.value) ? one.value : 0)]);
    const low = Math.min(0, ...ends), high = Math.max(0, ...ends), height = 240, top = 8, room = height - top - NAMES_FOOT;
    const wide = (width - AXIS) / (bars.length + 2);
    return { width, height, wide, room, top, low, high, x: (at) => AXIS + (at + (at === bars.length - 1 ? 1.2 : at > 0 ? 0.6 : 0)) * wide, y: (value) => top + room * (high - value) / (high - low || 1) };
  }

  paint(bars) {
    const place = this.layout(bars), context = sheet(this.canvas, place.width, place.height);
    if (!context) return;
    ticks(context, this.canvas, place);
    bars.forEach((bar, at) => this.bar(context, place, bar, at, bars));
    this.names(context, place, bars);
    put(find("attribution-unit"), "logits");
    this.canvas.setAttribute("aria-label", `Waterfall. ${find("attribution-note").textContent}`);
  }

  bar(context, place, bar, at, bars) {
    const x = place.x(at), wide = Math.max(place.wide * (bar.whole || at === 0 ? 1 : 0.86), 1);
    if (bar.layer === this.state.values.layer) {
      context.fillStyle = colour("select");
      context.fillRect(x - (bar.part ? place.wide * 0.07 : 0), place.top, place.wide, place.room);
    }
    if (!Number.isFinite(bar.value)) return;
    const start = place.y(bar.from), end = place.y(bar.from + bar.value);
    context.fillStyle = colour(bar.whole ? "accent" : bar.value < 0 ? "lowers" : "raises");
    context.fillRect(x, Math.min(start, end), wide, Math.max(Math.abs(end - start), 1));
    if (bar.whole || at === bars.length - 2) return;
    context.fillStyle = colour("secondary");
    context.fillRect(x + wide, end - 0.5, place.x(at + 1) - x - wide, 1);
  }

  names(context, place, bars) {
    const y = place.height - NAMES_FOOT + 14, each = [1, 2, 5, 10, 20].find((one) => one * place.wide * 2 >= 22) || 50;
    context.font = fontOf(this.canvas, 11, "sans");
    const wide = (text) => context.measureText(text).width, after = place.width - place.x(bars.findLastIndex((bar) => bar.layer !== undefined) + 1);
    const first = place.wide > 40 ? "embedding" : "emb.", last = wide("biases, rest, logit") < after ? "biases, rest, logit" : "= logit";
    const from = Math.min(place.x(0), AXIS) + wide(first) + 4, to = place.width - wide(last) - 4;
    context.textAlign = "center";
    bars.forEach((bar, at) => {
      const chosen = bar.layer === this.state.values.layer, middle = place.x(at) + place.wide, half = wide(String(bar.layer)) / 2;
      if (bar.part !== 0 || middle - half < from || middle + half > to) return;
      if (!chosen && (bar.layer % each || Math.abs(bar.layer - this.state.values.layer) * place.wide * 2 < 16)) return;
      context.fillStyle = colour(chosen ? "text" : "secondary");
      context.fillText(String(bar.layer), middle, y);
    });
    context.fillStyle = colour("secondary");
    context.textAlign = "left";
    context.fillText(first, Math.min(place.x(0), AXIS), y);
    context.textAlign = "right";
    context.fillText(last, place.width, y);
    context.textAlign = "center";
    context.fillText("layer: attention, MLP", AXIS + (place.width - AXIS) / 2, y + 16);
  }

  at(event) {
    if (this.state.step < 0) return null;
    const bars = this.bars(), place = this.layout(bars), x = event.clientX - this.canvas.getBoundingClientRect().left;
    return bars.find((_, at) => x >= place.x(at) && x < place.x(at) + place.wide) || null;
  }

  choose(event) {
    const bar = this.at(event);
    if (bar && bar.layer !== undefined) this.state.set({ layer: bar.layer });
  }

  about(event) {
    const bar = this.at(event);
    if (!bar) return null;
    const why = bar.layer === undefined ? "can’t be told apart" : this.run.missing("attribution", bar.layer) || "this layer has no such part, or a later one hides it";
    if (!Number.isFinite(bar.value)) return [bar.label, `none: ${why}`];
    return bar.whole ? [bar.label, ["logits", fixed(bar.value, 2)]] : [bar.label, ["adds", `${signed(bar.value)} logits`], ["sum so far", fixed(bar.from + bar.value, 2)]];
  }
}

// Lines at round numbers, with the numbers at the left.
function ticks(context, canvas, place) {
  const span = place.high - place.low || 1, power = 10 ** Math.floor(Math.log10(span / 4)), each = [1, 2, 5, 10].map((one) => one * power).find((one) => span / one <= 6);
  context.font = fontOf(canvas, 11, "sans");
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (let at = Math.ceil(place.low / each); at * each <= place.high; at++) {
    context.fillStyle = colour(at ? "frame" : "secondary");
    context.fillRect(AXIS - 4, Math.round(place.y(at * each)), place.width - AXIS + 4, 1);
    context.fillStyle = colour("secondary");
    context.fillText(String(Number((at * each).toPrecision(6))), AXIS - 8, place.y(at * each));
  }
}

PANELS.push(Attribution);
