// ---- a sweep: a row a layer, a column a head; the change of the target's logit where that alone adds nothing ----

const SWEEP_ROW = 20, STRONG = 12;

class SweepMap {
  constructor(state) {
    this.state = state;
    this.run = state.run;
    this.said = this.run.header.sweep;
    this.canvas = find("sweep-map");
    const changes = this.run.data("sweep.change"), places = this.run.data("sweep.place");
    this.changes = new Map([...places].map((place, at) => [place, at]));
    this.most = [...changes].reduce((best, one) => (Number.isFinite(one) ? Math.max(best, Math.abs(one)) : best), 0);
    onHover(this.canvas, (event) => this.about(event));
    this.describe();
    this.list(changes);
    state.onChange((changed) => { if (changed.has("size") || changed.has("theme")) this.paint(); });
  }

  describe() {
    const { what, how, target, minus, score, p, sites, ended } = this.said, one = { heads: "each head", attn: "each attention block", mlp: "each MLP", layers: "each layer" }[what];
    put(find("text-title"), "Prompt");
    put(find("sweep-title"), `Sweep: ${one} ablated alone`);
    const done = this.changes.size, whole = done === sites ? `${sites} sites` : `${done} of ${sites} sites${ended ? ", interrupted" : ""}`;
    say(find("sweep-note"), "Change of the ", minus === null ? "logit of " : "logit difference ", [target], ...(minus === null ? [] : [" minus ", [minus]]), ` where its output becomes ${how === "mean" ? "its mean over the prompt" : "0"} · unchanged: ${fixed(score, 2)}, p ${likelihood(p)} · ${whole}`);
    find("sweep-legend").replaceChildren(make("em", { textContent: `${signed(-this.most)}` }), make("span", { className: "ramp both" }), make("em", { textContent: `${signed(this.most)} logits` }));
  }

  list(changes) {
    const order = [...changes.keys()].sort((a, b) => (Math.abs(changes[b]) || 0) - (Math.abs(changes[a]) || 0)).slice(0, STRONG), p = this.run.data("sweep.p");
    find("sweep-list").replaceChildren(...order.map((at) => make("li", {}, cell("", this.run.text("sweep.site", at)), bar(this.most ? changes[at] / this.most : 0, "", true), cell("right", signed(changes[at])), cell("right quiet", `p ${percent(this.said.p)} → ${percent(p[at])}`))));
  }

  layout() {
    const width = Math.floor(this.canvas.parentElement.clientWidth), wide = Math.min((width - GUTTER) / this.said.columns, 72);
    return { width: GUTTER + wide * this.said.columns, wide, row: SWEEP_ROW, height: SWEEP_ROW * this.run.layers + FOOT };
  }

  paint() {
    const place = this.layout(), context = sheet(this.canvas, place.width, place.height), { layers } = this.run, { columns } = this.said;
    if (!context) return;
    context.textBaseline = "middle";
    context.font = fontOf(this.canvas, 11, "sans");
    for (let layer = 0; layer < layers; layer++) {
      const y = (layers - 1 - layer) * place.row;
      context.textAlign = "right";
      context.fillStyle = colour("secondary");
      context.fillText(String(layer), GUTTER - 8, y + place.row / 2);
      for (let column = 0; column < columns; column++) this.cell(context, place, layer, column, y);
    }
    context.textAlign = "center";
    context.fillStyle = colour("secondary");
    if (columns > 1) context.fillText("head", GUTTER / 2, place.height - FOOT / 2);
    const each = [1, 2, 4, 8, 16].find((one) => one * place.wide >= 20) || 32;
    for (let column = 0; column < columns && columns > 1; column += each) context.fillText(String(column), GUTTER + (column + 0.5) * place.wide, place.height - FOOT / 2);
    this.canvas.setAttribute("aria-label", `${find("sweep-title").textContent}, ${layers} layers by ${columns}. ${find("sweep-note").textContent}`);
  }

  cell(context, place, layer, column, y) {
    const at = this.changes.get(layer * this.said.columns + column), x = GUTTER + column * place.wide, change = at === undefined ? NaN : this.run.value("sweep.change", at);
    if (!Number.isFinite(change)) {
      context.fillStyle = colour(at === undefined ? "frame" : "warning");
      context.fillRect(x + place.wide / 2 - 1, y + place.row / 2 - 1, 2, 2);
      return;
    }
    const level = Math.round((this.most ? change / this.most : 0) * HEAT / 2) + HEAT / 2;
    context.fillStyle = colour(`diverging-${level}`);
    context.fillRect(x, y, place.wide - 1, place.row - 1);
    if (place.wide < 40) return;
    context.textAlign = "center";
    context.fillStyle = colour(`diverging-ink-${level}`);
    context.fillText(signed(change), x + place.wide / 2, y + place.row / 2);
  }

  about(event) {
    const box = this.canvas.getBoundingClientRect(), place = this.layout(), column = Math.floor((event.clientX - box.left - GUTTER) / place.wide), layer = this.run.layers - 1 - Math.floor((event.clientY - box.top) / place.row);
    if (column < 0 || column >= this.said.columns || layer < 0) return null;
    const at = this.changes.get(layer * this.said.columns + column), name = this.said.columns > 1 ? `L${layer}.H${column}` : `layer ${layer}`;
    if (at === undefined) return [name, `none: ${this.said.missing[name] || "not ablated"}`];
    return [this.run.text("sweep.site", at), ["change", `${signed(this.run.value("sweep.change", at))} logits`], ["p", `${percent(this.said.p)} → ${percent(this.run.value("sweep.p", at))}`]];
  }
}

PANELS.push(SweepMap);
