// ---- the lens map: a row a layer, the highest on top, a column a token ----

const WIDE = 74; // px of a column with text
const GUTTER = 30, FOOT = 22, LABEL = 40; // px of the layers' numbers, of the text below, and between numbers there

class LensMap {
  constructor(state) {
    this.state = state;
    this.run = state.run;
    this.canvas = find("lens-map");
    this.known = !this.run.header.lens.why;
    this.canvas.addEventListener("pointerdown", (event) => this.choose(event));
    onHover(this.canvas, (event) => this.about(event));
    for (const button of document.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => state.set({ zoom: button.dataset.zoom }));
    find("lens-legend").replaceChildren(make("em", { textContent: "p 0" }), make("span", { className: "ramp" }), make("em", { textContent: "100 %" }));
    state.onChange((changed) => this.draw(changed));
  }

  draw(changed) {
    if (!["branch", "t", "layer", "zoom", "size", "theme"].some((name) => changed.has(name))) return;
    for (const button of document.querySelectorAll("[data-zoom]")) button.setAttribute("aria-pressed", String(button.dataset.zoom === this.state.values.zoom));
    this.canvas.parentElement.hidden = !this.known;
    say(find("lens-note"), ...this.note());
    if (this.known) this.paint();
  }

  note() {
    const { t, layer } = this.state.values, step = this.state.step;
    if (!this.known) return [`none: ${this.run.header.lens.why}`];
    if (step < 0) return ["no token yet"];
    if (!this.run.knows("lens", step)) return [`Token ${t}: none: not captured for this token`];
    const tops = this.tops(step, layer), begin = `Layer ${layer} at token ${t}: `;
    if (!tops.length) return [`${begin}none: ${this.run.missing("logit_lens", layer) || "NaN"}`];
    return [begin, ...tops.flatMap(([text, p], at) => [at ? " · " : "", [text], ` ${p}`])];
  }

  // [text, probability] of a layer's most likely tokens.
  tops(step, layer) {
    const top = this.run.header.lens.top, from = layer * top;
    const tokens = this.run.row("lens.token", step), probs = this.run.row("lens.p", step);
    return Array.from({ length: top }, (_, at) => from + at).filter((at) => probs[at] !== NOTHING)
      .map((at) => [this.run.textAt(tokens[at]), percentOf(probs[at])]);
  }

  layout() {
    const width = Math.floor(this.canvas.parentElement.clientWidth), row = rowHeight();
    const count = this.state.count, room = width - GUTTER;
    const fits = this.state.values.zoom === "all" ? count : Math.max(1, Math.min(count, Math.floor(room / WIDE)));
    const first = clamp(this.state.values.t - Math.floor(fits / 2), 0, Math.max(count - fits, 0));
    const wide = Math.min(room / Math.max(fits, 1), this.state.values.zoom === "all" ? WIDE : room);
    const each = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000].find((step) => step * wide >= LABEL) || 10000;
    return { width, row, height: row * this.run.layers + FOOT, first, fits, wide, each };
  }

  paint() {
    const place = this.layout(), context = sheet(this.canvas, place.width, place.height);
    if (!context) return;
    context.textBaseline = "middle";
    this.gutter(context, place);
    for (let column = 0; column < place.fits; column++) this.column(context, place, column);
    if (place.wide < 40) this.floors(context, place);
    this.cursor(context, place);
    const { t, layer } = this.state.values;
    this.canvas.setAttribute("aria-label", `Lens map, ${this.run.layers} layers by ${this.state.count} tokens. ${this.note().flat().join("")}. Arrow keys select token ${t} and layer ${layer}.`);
  }

  y(place, layer) { return (this.run.layers - 1 - layer) * place.row; }

  gutter(context, place) {
    context.textAlign = "right";
    const each = Math.ceil(12 / place.row);
    for (let layer = 0; layer < this.run.layers; layer++) {
      const chosen = layer === this.state.values.layer;
      if (layer % each && !chosen) continue;
      context.font = `${chosen ? "600 " : ""}${fontOf(this.canvas, 11, "sans")}`;
      context.fillStyle = colour(chosen ? "text" : "secondary");
      context.fillText(String(layer), GUTTER - 8, this.y(place, layer) + place.row / 2);
    }
  }

  column(context, place, column) {
    const t = place.first + column, step = this.state.stepAt(t), x = GUTTER + column * place.wide;
    const gap = place.wide > 8 ? 1 : 0;
    if (this.run.knows("lens", step)) {
      const probs = this.run.row("lens.p", step);
      for (let layer = 0; layer < this.run.layers; layer++) this.cell(context, place, step, layer, x, gap, probs[layer * this.run.header.lens.top]);
    }
    this.foot(context, place, t, step, x);
  }

  cell(context, place, step, layer, x, gap, code) {
    const y = this.y(place, layer), share = shareOf(code);
    if (Number.isNaN(share)) {
      context.fillStyle = colour("frame");
      context.fillRect(x + place.wide / 2 - 1, y + place.row / 2 - 1, 2, 2);
      return;
    }
    const level = heatLevel(share);
    context.fillStyle = colour(`heat-${level}`);
    context.fillRect(x, y, place.wide - gap, place.row - 1);
    if (place.wide < 40 || place.row < 11) return;
    const sign = this.run.header.lens.marks[this.run.row("lens.mark", step)[layer]];
    const text = this.run.textAt(this.run.row("lens.token", step)[layer * this.run.header.lens.top]);
    context.font = fontOf(this.canvas, Math.min(12, place.row - 4), "mono");
    context.fillStyle = colour(`heat-ink-${level}`);
    context.textAlign = "left";
    context.fillText(cut(context, (sign === "◇" || sign === "◆" ? sign : "") + text, place.wide - 9), x + 4, y + place.row / 2);
  }

  foot(context, place, t, step, x) {
    const y = place.row * this.run.layers + FOOT / 2 + 1, chosen = t === this.state.values.t;
    context.fillStyle = colour(chosen ? "accent" : "secondary");
    if (place.wide >= 40) {
      context.textAlign = "left";
      context.font = `${chosen ? "600 " : ""}${fontOf(this.canvas, 12, "mono")}`;
      context.fillText(cut(context, this.run.text("token", step), place.wide - 6), x + 4, y);
    } else if (chosen || t % place.each === 0) {
      context.font = fontOf(this.canvas, 10, "sans");
      context.textAlign = "center";
      if (chosen || Math.abs(t - this.state.values.t) * place.wide > 24) context.fillText(String(t), x + place.wide / 2, y);
    }
  }

  // Where the columns have no text: a line below the layer from which on all predict the final answer.
  floors(context, place) {
    const stable = this.run.header.lens.marks.indexOf("◆");
    context.fillStyle = colour("accent");
    for (let column = 0; column < place.fits; column++) {
      const step = this.state.stepAt(place.first + column);
      const layer = this.run.knows("lens", step) ? this.run.row("lens.mark", step).indexOf(stable) : -1;
      if (layer >= 0) context.fillRect(GUTTER + column * place.wide, this.y(place, layer) + place.row - 2, place.wide, 2);
    }
  }

  cursor(context, place) {
    const { t, layer } = this.state.values, x = GUTTER + (t - place.first) * place.wide, tall = place.row * this.run.layers;
    context.strokeStyle = colour("text");
    context.lineWidth = 1.5;
    context.strokeRect(x - 0.5, 0.75, Math.max(place.wide, 3), tall - 1.5);
    context.globalAlpha = 0.55;
    context.strokeRect(GUTTER - 0.5, this.y(place, layer) - 0.5, place.fits * place.wide, place.row);
    context.globalAlpha = 1;
    context.lineWidth = 2.5;
    context.strokeStyle = colour("accent");
    context.strokeRect(x - 0.5, this.y(place, layer) - 0.5, Math.max(place.wide, 3), place.row);
  }

  // {t, layer} under the pointer, or null.
  at(event) {
    const box = this.canvas.getBoundingClientRect(), place = this.layout();
    const column = Math.floor((event.clientX - box.left - GUTTER) / place.wide), row = Math.floor((event.clientY - box.top) / place.row);
    if (column < 0 || column >= place.fits || row < 0) return null;
    return { t: place.first + column, layer: Math.max(this.run.layers - 1 - row, -1) };
  }

  choose(event) {
    const at = this.at(event);
    if (at) this.state.set(at.layer < 0 ? { t: at.t } : at);
  }

  about(event) {
    const at = this.at(event);
    if (!at || at.layer < 0) return at && aboutToken(this.run, this.state.stepAt(at.t), at.t);
    const step = this.state.stepAt(at.t), title = `Layer ${at.layer} at token ${at.t} ${this.run.text("token", step)}`;
    if (!this.run.knows("lens", step)) return [title, "none: not captured for this token"];
    const tops = this.tops(step, at.layer), missing = this.run.missing("logit_lens", at.layer);
    if (!tops.length) return [title, `none: ${missing || "NaN"}`];
    const chosen = this.run.row("lens.chosen", step)[at.layer];
    return [title, ...tops, ...(chosen === NOTHING ? [] : [["the token itself", percentOf(chosen)]])];
  }
}

// All panels of layers have rows of one height.
function rowHeight() {
  return parseFloat(getComputedStyle(ROOT).getPropertyValue("--row")) || 18;
}

function setRowHeight(layers) {
  ROOT.style.setProperty("--row", `${clamp(Math.floor(500 / Math.max(layers, 1)), 14, 28)}px`);
}

function cut(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let shown = [...text];
  while (shown.length && context.measureText(`${shown.join("")}…`).width > width) shown = shown.slice(0, -1);
  return `${shown.join("")}…`;
}
