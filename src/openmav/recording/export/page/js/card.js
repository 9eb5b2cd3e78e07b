// ---- the selected token, and its candidates ----

const FEW = 10; // candidates before the button

class Card {
  constructor(state) {
    this.state = state;
    this.recording = state.recording;
    find("more").addEventListener("click", () => state.set({ all: !state.values.all }));
    onHover(find("candidates"), (event) => this.aboutCandidate(event.target.closest("li")));
    state.onChange((changed) => {
      if (["branch", "t", "all"].some((name) => changed.has(name))) this.draw();
    });
  }

  draw() {
    const step = this.state.step;
    if (step < 0) return put(find("card-token"), "no token yet");
    put(find("card-place"), `${this.state.values.t} · position ${this.recording.value("position", step)} · id ${this.recording.value("id", step)}`);
    put(find("card-token"), this.recording.text("token", step));
    find("card-facts").replaceChildren(...this.facts(step).flatMap(([label, value, term]) => [
      make("dt", { textContent: label, data: term ? { about: term } : {} }), make("dd", { textContent: value }),
    ]));
    for (const label of find("card-facts").querySelectorAll("[data-about]")) onHover(label, () => TERMS[label.dataset.about]);
    this.candidates(step);
    return undefined;
  }

  facts(step) {
    const value = (name) => this.recording.value(name, step);
    const sampled = value("sampled_p"), alarm = this.recording.text("alarm", step), context = this.recording.context(step);
    const rank = value("rank") >= 0 ? `${value("rank")} of ${this.recording.model.vocab.toLocaleString("en")}` : "none: not known";
    const seconds = [...this.recording.row("seconds", step)].map((one) => fixed(one * 1000, 1));
    const total = this.recording.row("seconds", step).reduce((a, b) => a + b, 0);
    return [
      ["p", likelihood(value("p")) + (Number.isNaN(sampled) ? "" : ` → ${likelihood(sampled)} after sampling`)],
      ["rank", rank, "rank"],
      ["surprisal", `${fixed(value("surprisal"), 2)} nats`, "surprisal"],
      ["entropy", `${fixed(value("entropy"), 2)} nats`, "entropy"],
      ["chosen", this.recording.text("chosen_by", step), this.recording.forced(step) ? "forced" : ""],
      ["bytes", this.recording.text("bytes", step)],
      ...context.interventions.map((text) => ["modified", text]),
      ...this.baseline(step, context),
      ...(alarm ? [["warning", `NaN or infinity in ${alarm}`]] : []),
      ["time", `${fixed(total * 1000, 1)} ms: model ${seconds[0]}, capture ${seconds[1]}, sampling ${seconds[2]}`],
    ];
  }

  baseline(step, context) {
    if (!context.interventions.length) return [];
    const surprisal = this.recording.value("base.surprisal", step), entropy = this.recording.value("base.entropy", step);
    if (Number.isNaN(surprisal) && Number.isNaN(entropy)) return [["baseline", "none: the baseline model was not run"]];
    return [["baseline", `surprisal ${fixed(surprisal, 2)}, entropy ${fixed(entropy, 2)} nats`]];
  }

  rows(step) {
    const ids = this.recording.row("candidate.id", step);
    const count = ids.indexOf(-1) < 0 ? ids.length : ids.indexOf(-1);
    const chosen = ids.indexOf(this.recording.value("id", step));
    const shown = this.state.values.all ? count : Math.min(FEW, count);
    const rows = Array.from({ length: shown }, (_, row) => row);
    if (chosen >= shown && shown) rows[shown - 1] = chosen;
    return { rows, count, chosen };
  }

  candidates(step) {
    const { rows, count, chosen } = this.rows(step), greedy = this.recording.context(step).greedy;
    const column = (name) => this.recording.row(`candidate.${name}`, step);
    const tokens = column("token"), probs = column("p"), sampled = column("sampled_p");
    find("card").classList.toggle("greedy", greedy);
    find("candidates").replaceChildren(...rows.map((row) => {
      const cut = !greedy && sampled[row] === 0, bar = make("i");
      bar.style.width = `${clamp(probs[row] || 0, 0, 1) * 100}%`;
      return make("li", { className: [row === chosen ? "chosen" : "", cut ? "cut" : ""].join(" ").trim(), data: { row } },
        make("bdi", { textContent: this.recording.textAt(tokens[row]) }), make("span", { className: "bar" }, bar),
        make("b", { textContent: percent(probs[row]) }), make("small", { textContent: greedy ? "" : cut ? "cut" : `→ ${percent(sampled[row])}` }));
    }));
    put(find("candidates-note"), this.recording.context(step).sampling);
    find("more").hidden = count <= FEW;
    put(find("more"), this.state.values.all ? "Fewer" : `All ${count}`);
  }

  aboutCandidate(item) {
    if (!item) return null;
    const step = this.state.step, row = Number(item.dataset.row);
    const value = (name) => this.recording.row(`candidate.${name}`, step)[row];
    const base = value("base"), context = this.recording.context(step);
    return [
      this.recording.textAt(value("token")),
      `candidate ${row} · id ${value("id")}`,
      ["p", likelihood(value("p"))],
      ...(context.greedy ? [] : [["after sampling", value("sampled_p") === 0 ? "cut" : likelihood(value("sampled_p"))]]),
      ["logit", fixed(value("logit"), 2)],
      ...(Number.isNaN(base) ? [] : [["baseline p", likelihood(base)]]),
    ];
  }
}
