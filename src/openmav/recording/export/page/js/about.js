// ---- the run: its header, its branches, what was changed, and the guide ----

const KEYS = [
  ["← →", "previous, next token"], ["Home End", "first, last token"], ["n  N", "next, previous surprising token (3 nats or more)"],
  ["[ ]", "layer below, above; on the lens map also ↑ ↓"], ["{ }", "previous, next head; before head 0 is the mean"], ["v", "next colouring: surprise, entropy, attention"],
  ["a", "lens map: all tokens, or readable cells"], ["b", "next branch"], ["space", "play, pause"], ["d", "light or dark"], ["?", "this guide"],
];
const HEADED = ["run by", "size", "sampling", "seed"]; // facts that the header has too

function showRun(recording) {
  const facts = new Map(recording.header.facts);
  put(find("model"), recording.model.name);
  document.title = `${recording.model.name} · mav`;
  put(find("summary"), HEADED.filter((name) => facts.has(name)).map((name) => (name === "seed" ? `seed ${facts.get(name)}` : facts.get(name))).join(" · "));
  const lacking = [...Object.entries({ logit_lens: recording.header.lens, attention_rows: recording.header.attention, ...recording.header.measures, ...recording.header.more })].filter(([, said]) => said.why).map(([name, { why }]) => `${name} (${why.split(";")[0]})`);
  const problems = recording.header.problems.map((text) => ["problem", text]);
  find("run-facts").replaceChildren(...[...recording.header.facts, ...(lacking.length && !recording.header.sweep ? [["not shown", lacking.join(" · ")]] : []), ...problems].flatMap(([label, value]) => [make("dt", { textContent: label }), make("dd", { textContent: value })]));
}

function showGuide() {
  const pairs = (list) => list.flatMap(([term, text]) => [make("dt", { textContent: term }), make("dd", { textContent: text })]);
  find("terms").replaceChildren(...pairs(Object.values(TERMS)));
  find("keys").replaceChildren(...pairs(KEYS));
  find("help").addEventListener("click", toggleGuide);
  find("guide").addEventListener("click", (event) => { if (event.target === find("guide")) find("guide").close(); });
}

function toggleGuide() {
  const guide = find("guide");
  if (guide.open) guide.close();
  else guide.showModal();
}

class Changes {
  constructor(state) {
    this.state = state;
    this.run = state.run;
    const branches = this.run.branches;
    find("branches").hidden = branches.length < 2;
    find("branch").replaceChildren(...branches.map((one, value) => make("option", { value, textContent: one.name })));
    find("branch").addEventListener("change", (event) => this.go(Number(event.target.value)));
    state.onChange((changed) => {
      if (changed.has("branch")) this.draw();
      if (changed.has("branch") || changed.has("t")) this.mark();
    });
  }

  // To another branch: to its first token of its own, where the two part.
  go(branch) {
    const { parent, at } = this.run.branches[branch];
    this.state.set({ branch, ...(parent === null ? {} : { t: at }) });
  }

  draw() {
    find("branch").value = this.state.values.branch;
    const { changes, parent, at } = this.run.branches[this.state.values.branch];
    const left = parent === null ? [] : [{ token: at, kind: "branch", text: `left “${parent}” here` }];
    const others = this.run.branches.filter((one) => one.parent === this.run.branches[this.state.values.branch].name)
      .map((one) => ({ token: one.at, kind: "branch", text: `“${one.name}” leaves here`, name: one.name }));
    const list = [...changes, ...left, ...others].sort((a, b) => a.token - b.token);
    find("changes-list").replaceChildren(...(list.length ? list.map((one) => this.item(one)) : [make("li", { className: "quiet", textContent: "Nothing: no token was forced, sampling stayed as it was, and the model was not modified." })]));
  }

  item({ token, kind, text, name }) {
    const button = make("button", { type: "button", className: "plain" }, make("b", { textContent: `token ${token}` }), make("em", { textContent: kind }), make("bdi", { textContent: text }));
    button.dataset.token = token;
    button.addEventListener("click", () => (name === undefined ? this.state.set({ t: token }) : this.go(this.run.branches.findIndex((one) => one.name === name))));
    return make("li", {}, button);
  }

  mark() {
    for (const button of find("changes-list").querySelectorAll("button")) button.classList.toggle("chosen", Number(button.dataset.token) === this.state.values.t);
  }
}
