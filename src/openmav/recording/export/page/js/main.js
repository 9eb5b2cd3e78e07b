// ---- keys, theme, playing, print, and the start ----

const PLAY_PAUSE = 250; // ms a token
const SURPRISING = 3; // nats

function nextSurprising(state, by) {
  for (let t = state.values.t + by; t >= 0 && t < state.count; t += by) {
    if (state.run.value("surprisal", state.stepAt(t)) >= SURPRISING) return state.set({ t });
  }
  return undefined;
}

function keys(state, playing) {
  const move = (name, by) => () => state.set({ [name]: state.values[name] + by });
  return {
    ArrowLeft: move("t", -1), ArrowRight: move("t", 1), ArrowUp: move("layer", 1), ArrowDown: move("layer", -1),
    "]": move("layer", 1), "[": move("layer", -1), "}": move("head", 1), "{": move("head", -1),
    Home: () => state.set({ t: 0 }), End: () => state.set({ t: state.count - 1 }),
    n: () => nextSurprising(state, 1), N: () => nextSurprising(state, -1),
    v: () => state.set({ tint: TINTS[(TINTS.indexOf(state.values.tint) + 1) % TINTS.length] }),
    a: () => state.set({ zoom: state.values.zoom === "all" ? "read" : "all" }),
    b: () => state.changes.go((state.values.branch + 1) % state.run.branches.length),
    d: () => switchTheme(state), "?": toggleGuide, " ": () => playing.toggle(), Escape: () => tip.hide(),
  };
}

function onKey(state, table, event) {
  if (event.ctrlKey || event.metaKey || event.altKey || (find("guide").open && event.key !== "?")) return;
  const target = event.target, moves = event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End";
  if (target.tagName === "SELECT" || (event.key === " " && target.tagName === "BUTTON")) return;
  if (target.id === "scrub" && moves) return; // the slider's own
  if (["ArrowUp", "ArrowDown"].includes(event.key) && target.id !== "lens-map") return; // they scroll the page
  const act = Object.hasOwn(table, event.key) ? table[event.key] : null;
  if (typeof act !== "function") return;
  event.preventDefault();
  act();
}

class Playing {
  constructor(state) {
    this.state = state;
    this.timer = 0;
    find("play").addEventListener("click", () => this.toggle());
  }

  toggle() {
    if (this.timer) return this.stop();
    if (this.state.values.t >= this.state.count - 1) this.state.set({ t: 0 });
    this.timer = setInterval(() => (this.state.values.t >= this.state.count - 1 ? this.stop() : this.state.set({ t: this.state.values.t + 1 })), PLAY_PAUSE);
    return this.show("⏸", "Pause");
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    this.show("▶", "Play");
  }

  show(sign, label) {
    put(find("play").firstChild, sign);
    find("play").setAttribute("aria-label", label);
  }
}

function switchTheme(state) {
  const theme = ROOT.dataset.theme === "dark" ? "light" : "dark";
  ROOT.dataset.theme = theme;
  try { localStorage.setItem("mav-theme", theme); } catch { /* no storage: the choice lasts as long as the page */ }
  state.schedule("theme");
}

// Print is on a light ground; canvases are painted again for it, at once.
function preparePrint(state) {
  let theme = "";
  addEventListener("beforeprint", () => {
    theme = ROOT.dataset.theme;
    Object.assign(ROOT.dataset, { theme: "light", print: "yes" });
    state.schedule("theme", "size");
    state.draw();
  });
  addEventListener("afterprint", () => {
    ROOT.dataset.theme = theme;
    delete ROOT.dataset.print;
    state.schedule("theme", "size");
  });
}

function speak(state) {
  state.onChange((changed) => {
    if (!changed.has("t") || state.step < 0) return;
    put(find("live"), `Token ${state.values.t}: ${state.run.text("token", state.step)}, p ${likelihood(state.run.value("p", state.step))}`);
  });
}

async function start() {
  const recording = await unpacked(find("data").textContent);
  find("data").remove();
  const state = new State(recording);
  setRowHeight(recording.layers);
  showRun(recording);
  showGuide();
  MAIN.classList.toggle("no-lens", Boolean(recording.header.lens.why));
  MAIN.classList.toggle("of-sweep", Boolean(recording.header.sweep));
  find("sweep").hidden = !recording.header.sweep;
  MAIN.hidden = document.querySelector(".dock").hidden = false;
  new TextPanel(state);
  new Card(state);
  new Timeline(state);
  new LensMap(state);
  new Layers(state);
  for (const panel of PANELS) new panel(state);
  state.changes = new Changes(state);
  const table = keys(state, new Playing(state));
  addEventListener("keydown", (event) => onKey(state, table, event));
  find("theme").addEventListener("click", () => switchTheme(state));
  for (const name of ["scroll", "pointerdown"]) addEventListener(name, () => tip.hide(), { passive: true, capture: true });
  new ResizeObserver(() => state.schedule("size")).observe(MAIN);
  explainTerms();
  preparePrint(state);
  speak(state);
  readAddress(state);
  state.schedule(...Object.keys(state.values), "size", "theme");
  followAddress(state);
}

start().catch((error) => {
  find("notice").hidden = false;
  put(find("notice"), `This page cannot show its recording: ${error.message}. A browser from 2023 or later is needed.`);
  throw error;
});
