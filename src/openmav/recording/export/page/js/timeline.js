// ---- the timeline: a bar a token as high as its surprise, a line for the entropy, and the slider over it ----

const THUMB = 16; // px, as in the style

class Timeline {
  constructor(state) {
    this.state = state;
    this.run = state.run;
    this.canvas = find("timeline");
    this.slider = find("scrub");
    this.slider.addEventListener("input", () => state.set({ t: Number(this.slider.value) }));
    onHover(this.slider, (event) => this.about(event));
    find("back").addEventListener("click", () => state.set({ t: state.values.t - 1 }));
    find("forward").addEventListener("click", () => state.set({ t: state.values.t + 1 }));
    state.onChange((changed) => this.draw(changed));
  }

  draw(changed) {
    const { t } = this.state.values, last = Math.max(this.state.count - 1, 0);
    this.slider.max = last;
    this.slider.value = t;
    put(find("place"), this.state.count ? `${t} / ${last}` : "no token yet");
    find("back").disabled = t <= 0;
    find("forward").disabled = t >= last;
    if (this.state.step >= 0) this.slider.setAttribute("aria-valuetext", `token ${t}: ${this.run.text("token", this.state.step)}`);
    if (["branch", "size", "theme"].some((name) => changed.has(name))) this.paint();
  }

  // The middle of a token, where the slider's thumb stands.
  x(t, width) {
    return THUMB / 2 + (this.state.count > 1 ? t / (this.state.count - 1) : 0) * (width - THUMB);
  }

  paint() {
    const { width, height } = this.canvas.parentElement.getBoundingClientRect();
    const context = sheet(this.canvas, width, height);
    if (!context) return;
    const steps = Array.from(this.run.steps(this.state.values.branch)), top = 8, room = height - top - 1;
    const nats = (name) => steps.map((step) => this.run.value(name, step));
    const surprise = nats("surprisal"), entropy = nats("entropy");
    const most = [...surprise, ...entropy].reduce((best, one) => (Number.isFinite(one) ? Math.max(best, one) : best), 7);
    const wide = Math.max(Math.min((width - THUMB) / Math.max(steps.length - 1, 1) - 1, 14), 1);
    surprise.forEach((one, t) => this.bar(context, this.x(t, width), one, wide, height, room / most));
    this.line(context, entropy.map((one, t) => [this.x(t, width), height - 1 - one * room / most]));
    for (const { token } of this.run.branches[this.state.values.branch].changes) this.mark(context, this.x(token, width));
    put(find("most"), `${fixed(most, 0)} nats`);
  }

  bar(context, x, nats, wide, height, scale) {
    const step = stepOf(nats);
    context.fillStyle = step < 0 ? colour("warning") : colour(step ? `surprise-${step}` : "frame");
    const tall = step < 0 ? 6 : Math.max(nats * scale, 1.5);
    context.fillRect(x - wide / 2, height - tall, wide, tall);
  }

  line(context, points) {
    context.strokeStyle = colour("entropy");
    context.lineWidth = 1.25;
    context.globalAlpha = 0.85;
    context.beginPath();
    let open = false;
    for (const [x, y] of points) {
      if (Number.isFinite(y)) context[open ? "lineTo" : "moveTo"](x, y);
      open = Number.isFinite(y);
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  mark(context, x) {
    context.fillStyle = colour("accent");
    context.beginPath();
    context.moveTo(x - 4, 0);
    context.lineTo(x + 4, 0);
    context.lineTo(x, 6);
    context.fill();
  }

  about(event) {
    const { left, width } = this.slider.getBoundingClientRect();
    const t = Math.round((event.clientX - left - THUMB / 2) / (width - THUMB) * (this.state.count - 1));
    if (!(t >= 0 && t < this.state.count)) return null;
    const changes = this.run.branches[this.state.values.branch].changes.filter((one) => one.token === t);
    return [...aboutToken(this.run, this.state.stepAt(t), t), ...changes.map((one) => [one.kind, one.text])];
  }
}
