// ---- the selected token, and its candidates ----

const FEW = 10; // candidates before the button

class Card {
  constructor(state) {
    this.state = state;
    this.run = state.run;
    find("more").addEventListener("click", () => state.set({ all: !state.values.all }));
    onHover(find("candidates"), (event) => this.aboutCandidate(event.target.closest("li")));
    state.onChange((changed) => {
      if (["branch", "t", "all"].some((name) => changed.has(name))) this.draw();
    });
  }

  draw() {
    const step = this.state.step;
    if (step < 0) return put(find("card-token"), "no token yet");
    put(find("card-place"), `${this.state.values.t} · position ${this.run.value("position", step)} · id ${this.run.value("id", step)}`);
    put(find("card-token"), this.run.text("token", step));
    find("card-facts").replaceChildren(...this.facts(step).flatMap(([label, value, term]) => [
      make("dt", { textContent: label, data: term ? { about: term } : {} }), make("dd", { textContent: value }),
    ]));
    for (const label of find("card-facts").querySelectorAll("[data-about]")) onHover(label, () => TERMS[label.dataset.about]);
    this.candidates(step);
    return undefined;
  }

  facts(step) {
    const value = (name) => this.run.value(name, step);
    const sampled = value("sampled_p"), alarm = this.run.text("alarm", step), context = this.run.context(step);
    const rank = value("rank") >= 0 ? `${value("rank")} of ${this.run.model.vocab.toLocaleString("en")}` : "none: not known";
    const seconds = [...this.run.row("seconds", step)].map((one) => fixed(one * 1000, 1));
    const total = this.run.row("seconds", step).reduce((a, b) => a + b, 0);
    return [
      ["p", likelihood(value("p")) + (Number.isNaN(sampled) ? "" : ` → ${likelihood(sampled)} after sampling`)],
      ["rank", rank, "rank"],
      ["surprisal", `${fixed(value("surprisal"), 2)} nats`, "surprisal"],
      ["entropy", `${fixed(value("entropy"), 2)} nats`, "entropy"],
      ["chosen", this.run.text("chosen_by", step), this.run.forced(step) ? "forced" : ""],
      ["bytes", this.run.text("bytes", step)],
      ...context.interventions.map((text) => ["modified", text]),
      ...this.baseline(step, context),
      ...(alarm ? [["warning", `NaN or infinity in ${alarm}`]] : []),
      ...this.cache(step),
      ["time", `${fixed(total * 1000, 1)} ms: model ${seconds[0]}, capture ${seconds[1]}, sampling ${seconds[2]}`],
    ];
  }

  cache(step) {
    if (!this.run.knows("cache_size", step)) return [];
    const bytes = this.run.value("cache_size", step);
    return [["cache", bytes ? `${fixed(bytes / 2 ** (bytes < 2 ** 20 ? 10 : 20), 1)} ${bytes < 2 ** 20 ? "KiB" : "MiB"} of keys and values` : "none: not reported"]];
  }

  baseline(step, context) {
    if (!context.interventions.length) return [];
    const surprisal = this.run.value("base.surprisal", step), entropy = this.run.value("base.entropy", step);
    if (Number.isNaN(surprisal) && Number.isNaN(entropy)) return [["baseline", "none: the baseline model was not run"]];
    return [["baseline", `surprisal ${fixed(surprisal, 2)}, entropy ${fixed(entropy, 2)} nats`]];
  }

  rows(step) {
    const ids = this.run.row("candidate.id", step);
    const count = ids.indexOf(-1) < 0 ? ids.length : ids.indexOf(-1);
    const chosen = ids.indexOf(this.run.value("id", step));
    const shown = this.state.values.all ? count : Math.min(FEW, count);
    const rows = Array.from({ length: shown }, (_, row) => row);
    if (chosen >= shown && shown) rows[shown - 1] = chosen;
    return { rows, count, chosen };
  }

  candidates(step) {
    const { rows, count, chosen } = this.rows(step), greedy = this.run.context(step).greedy;
    const column = (name) => this.run.row(`candidate.${name}`, step);
    const tokens = column("token"), probs = column("p"), sampled = column("sampled_p"), bases = column("base");
    find("card").classList.toggle("greedy", greedy);
    find("candidates").replaceChildren(...rows.map((row) => {
      const cut = !greedy && sampled[row] === 0, bar = make("i"), base = make("s", { hidden: !(bases[row] >= 0) });
      bar.style.width = `${clamp(probs[row] || 0, 0, 1) * 100}%`;
      base.style.left = `${clamp(bases[row] || 0, 0, 1) * 100}%`;
      return make("li", { className: [row === chosen ? "chosen" : "", cut ? "cut" : ""].join(" ").trim(), data: { row } },
        make("bdi", { textContent: this.run.textAt(tokens[row]) }), make("span", { className: "bar" }, bar, base),
        make("b", { textContent: percent(probs[row]) }), make("small", { textContent: greedy ? "" : cut ? "cut" : `→ ${percent(sampled[row])}` }));
    }));
    put(find("candidates-note"), this.run.context(step).sampling);
    find("more").hidden = count <= FEW;
    put(find("more"), this.state.values.all ? "Fewer" : `All ${count}`);
  }

  aboutCandidate(item) {
    if (!item) return null;
    const step = this.state.step, row = Number(item.dataset.row);
    const value = (name) => this.run.row(`candidate.${name}`, step)[row];
    const base = value("base"), context = this.run.context(step);
    return [
      this.run.textAt(value("token")),
      `candidate ${row} · id ${value("id")}`,
      ["p", likelihood(value("p"))],
      ...(context.greedy ? [] : [["after sampling", value("sampled_p") === 0 ? "cut" : likelihood(value("sampled_p"))]]),
      ["logit", fixed(value("logit"), 2)],
      ...(Number.isNaN(base) ? [] : [["baseline p", likelihood(base)]]),
    ];
  }
}
