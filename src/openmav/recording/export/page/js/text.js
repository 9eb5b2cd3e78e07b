// ---- the text, coloured ----

const STRONGEST = 3; // tokens that the note names
const SHORT = 420; // characters of a text that is set larger

class TextPanel {
  constructor(state) {
    this.state = state;
    this.run = state.run;
    this.box = find("tokens");
    this.spans = [];
    this.box.addEventListener("click", (event) => this.choose(event.target));
    onHover(this.box, (event) => this.about(event.target));
    for (const button of document.querySelectorAll("[data-tint]")) button.addEventListener("click", () => state.set({ tint: button.dataset.tint }));
    this.fill(find("layer"), this.run.layers, (at) => [at, String(at)]);
    find("layer").addEventListener("change", (event) => state.set({ layer: Number(event.target.value) }));
    find("head").addEventListener("change", (event) => state.set({ head: Number(event.target.value) }));
    state.onChange((changed) => this.draw(changed));
  }

  fill(select, count, option) {
    select.replaceChildren(...Array.from({ length: count }, (_, at) => option(at)).map(([value, textContent]) => make("option", { value, textContent })));
  }

  draw(changed) {
    const { tint, t, layer, head } = this.state.values;
    if (changed.has("branch") || !this.spans.length) this.build();
    if (changed.has("branch") || changed.has("tint") || (tint === "attention" && ["t", "layer", "head"].some((name) => changed.has(name)))) this.tint();
    if (changed.has("branch") || changed.has("size")) this.fit();
    if (changed.has("branch") || changed.has("t")) this.mark(t);
    for (const button of document.querySelectorAll("[data-tint]")) button.setAttribute("aria-pressed", String(button.dataset.tint === tint));
    find("where").hidden = tint !== "attention";
    if (changed.has("layer")) this.fill(find("head"), this.run.headsOf(layer) + 1, (at) => [at - 1, at ? String(at - 1) : "mean"]);
    find("layer").value = layer;
    find("head").value = head;
  }

  build() {
    const prompt = this.run.prompt(this.state.values.branch);
    this.before = prompt.length;
    this.prompt = prompt;
    const steps = this.run.steps(this.state.values.branch);
    const parts = [...prompt.map((token) => this.span(token.text, "given")), ...Array.from(steps, (step) => this.generated(step))];
    parts.forEach((span, at) => { span.dataset.at = at; });
    this.spans = parts;
    this.box.classList.toggle("short", parts.reduce((sum, span) => sum + span.textContent.length, 0) < SHORT);
    this.box.replaceChildren(...parts);
  }

  // As high as the text, up to a limit; higher where its neighbour is.
  fit() {
    const last = this.spans.at(-1), most = innerWidth >= 1700 ? Math.max(180, innerHeight - 860) : Math.max(300, innerHeight * 0.44);
    this.box.style.minHeight = `${last ? Math.min(last.offsetTop + last.offsetHeight + 10, most) : 40}px`;
  }

  // A newline shows, and breaks the line.
  span(text, className) {
    const lines = text.split("\n").flatMap((line, at) => (at ? [make("i", { textContent: "⏎" }), "\n", line] : [line]));
    return make("span", { className }, ...lines);
  }

  generated(step) {
    const text = this.run.text("text", step) || (this.run.special(step) ? this.run.text("token", step) : "");
    return this.span(text, ["made", text ? "" : "part", this.run.forced(step) ? "forced" : ""].join(" ").trim());
  }

  tint() {
    const { tint, layer, head } = this.state.values;
    const row = tint === "attention" && this.state.step >= 0 ? this.run.attention(this.state.step, layer, head) : null;
    const known = row && row.some((code) => code !== NOTHING);
    this.spans.forEach((span, at) => this.colour(span, tint === "attention" ? this.eighth(known ? row : null, at) : this.nats(tint, at)));
    this.legend(tint);
    say(find("text-note"), ...(tint !== "attention" ? [this.mean(tint)] : known ? this.attended(row) : [this.none(layer, head)]));
    this.row = known ? row : null;
  }

  colour(span, step) {
    const next = step > 0 ? String(step) : undefined;
    if (span.dataset.step === next) return;
    if (next) span.dataset.step = next;
    else delete span.dataset.step;
  }

  nats(tint, at) {
    if (at < this.before) return 0;
    return stepOf(this.run.value(tint === "surprise" ? "surprisal" : "entropy", this.state.stepAt(at - this.before)));
  }

  eighth(row, at) {
    return row && at < row.length ? eighthOf(row[at]) : 0;
  }

  legend(tint) {
    const labels = tint === "attention" ? this.run.header.eighths : SURPRISE_LABELS;
    const unit = tint === "attention" ? "of the most" : "nats";
    find("legend").replaceChildren(...labels.map((label, at) => make("span", { textContent: label, data: at ? { step: at } : {} })), make("em", { textContent: unit }));
  }

  mean(tint) {
    const steps = Array.from(this.run.steps(this.state.values.branch));
    if (!steps.length) return "no token yet";
    const name = tint === "surprise" ? "surprisal" : "entropy";
    const mean = steps.reduce((sum, step) => sum + this.run.value(name, step), 0) / steps.length;
    const more = tint === "surprise" ? ` · perplexity ${fixed(Math.exp(mean), 1)}` : "";
    return `${steps.length} tokens · mean ${name} ${fixed(mean, 2)} nats${more}`;
  }

  attended(row) {
    const { t, layer, head } = this.state.values;
    const what = head < 0 ? `mean of ${this.run.headsOf(layer)} heads` : `head ${head}`;
    const share = (at) => shareOf(shareCode(row[at]));
    const strongest = Array.from(row.keys()).slice(1).filter((at) => share(at) > 0).sort((a, b) => share(b) - share(a) || eighthOf(row[b]) - eighthOf(row[a]));
    const named = strongest.slice(0, STRONGEST).flatMap((at) => [" · ", [this.name(at)], ` ${percentOf(shareCode(row[at]))}`]);
    return [`Where layer ${layer}, ${what}, looked to write token ${t}: first token ${percentOf(shareCode(row[0]))}`, ...named];
  }

  none(layer, head) {
    return this.state.step < 0 ? "no token yet" : `none: ${this.run.whyNoAttention(this.state.step, layer, head)}`;
  }

  name(at) {
    if (at < this.before) return this.prompt[at].text.trim() || "␣";
    return at - this.before < this.state.count ? this.run.text("token", this.state.stepAt(at - this.before)) : "?";
  }

  mark(t) {
    this.box.querySelector("[aria-current]")?.removeAttribute("aria-current");
    const span = this.spans[this.before + t];
    if (!span) return;
    span.setAttribute("aria-current", "true");
    const { top, bottom } = span.getBoundingClientRect(), box = this.box.getBoundingClientRect();
    if (top < box.top + 8 || bottom > box.bottom - 8) this.box.scrollTop += (top + bottom - box.top - box.bottom) / 2;
  }

  choose(target) {
    const at = Number(target.closest("[data-at]")?.dataset.at ?? -1) - this.before;
    if (at >= 0) this.state.set({ t: at });
  }

  about(target) {
    const span = target.closest("[data-at]");
    if (!span) return null;
    const at = Number(span.dataset.at), t = at - this.before;
    const attention = this.row && at < this.row.length ? [["attention", percentOf(shareCode(this.row[at]))]] : [];
    if (t < 0) return [this.prompt[at].text || "∅", `prompt · position ${at} · id ${this.prompt[at].id}`, ...attention];
    return [...aboutToken(this.run, this.state.stepAt(t), t), ...attention];
  }
}

function aboutToken(recording, step, t) {
  return [
    recording.text("token", step),
    `token ${t}${recording.forced(step) ? " · forced" : ""}`,
    ["p", likelihood(recording.value("p", step))],
    ["surprisal", `${fixed(recording.value("surprisal", step), 2)} nats`],
    ["entropy", `${fixed(recording.value("entropy", step), 2)} nats`],
  ];
}
