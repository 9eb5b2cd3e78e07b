// ---- what is selected; the address says it too ----

const TINTS = ["surprise", "entropy", "attention"];
const ADDRESS_PAUSE = 200; // ms: browsers allow few changes of the address a second

class State {
  constructor(recording) {
    this.run = recording;
    this.listeners = [];
    this.dirty = new Set();
    this.values = { branch: 0, t: 0, layer: recording.layers - 1, head: -1, tint: "surprise", heads: "attention_entropy", against: 0, zoom: "read", all: matchMedia("(min-width: 901px)").matches };
    this.values.t = Math.max(this.count - 1, 0);
  }

  get count() { return this.run.steps(this.values.branch).length; }
  get step() { return this.count ? this.run.steps(this.values.branch)[this.values.t] : -1; }
  stepAt(t) { return this.run.steps(this.values.branch)[t]; }

  // Whatever is out of range is moved into it.
  set(changes) {
    const next = { ...this.values, ...changes };
    next.branch = clamp(next.branch, 0, this.run.branches.length - 1);
    next.t = clamp(Math.round(next.t) || 0, 0, Math.max(this.run.steps(next.branch).length - 1, 0));
    next.layer = clamp(Math.round(next.layer) || 0, 0, Math.max(this.run.layers - 1, 0));
    next.head = clamp(Math.round(next.head), -1, this.run.heads - 1);
    for (const name of Object.keys(next)) if (next[name] !== this.values[name]) this.dirty.add(name);
    this.values = next;
    if (this.dirty.size) this.schedule();
  }

  schedule(...names) {
    for (const name of names) this.dirty.add(name);
    if (!this.frame) this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const changed = this.dirty;
    this.dirty = new Set();
    for (const listener of this.listeners) listener(changed);
  }

  onChange(listener) { this.listeners.push(listener); }
}

function readAddress(state) {
  const asked = new URLSearchParams(location.hash.slice(1));
  const changes = {};
  const branch = state.run.branches.findIndex((one) => one.name === asked.get("branch"));
  if (branch >= 0) changes.branch = branch;
  for (const name of ["t", "layer", "head"]) if (/^\d{1,9}$/.test(asked.get(name) || "")) changes[name] = Number(asked.get(name));
  if (asked.get("head") === "mean") changes.head = -1;
  if (TINTS.includes(asked.get("tint"))) changes.tint = asked.get("tint");
  state.set(changes);
}

function address(state) {
  const { branch, t, layer, head, tint } = state.values;
  const parts = { t, layer };
  if (tint === "attention") parts.head = head < 0 ? "mean" : head;
  if (tint !== "surprise") parts.tint = tint;
  if (branch) parts.branch = state.run.branches[branch].name;
  return `#${new URLSearchParams(parts)}`;
}

function followAddress(state) {
  let timer = 0;
  state.onChange(() => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      try { history.replaceState(null, "", address(state)); } catch { /* a page inside of another has no address of its own */ }
    }, ADDRESS_PAUSE);
  });
  addEventListener("hashchange", () => readAddress(state));
}
