// ---- elements, colours, and the one tooltip; foreign text is only ever textContent ----

const PANELS = []; // those that only one kind of page has

const ROOT = document.documentElement, MAIN = document.querySelector("main");

const find = (id) => document.getElementById(id);

function make(tag, options = {}, ...children) {
  const { data = {}, ...rest } = options;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// A sentence in which [token] is a token, set apart from the words.
function say(element, ...parts) {
  element.replaceChildren(...parts.map((part) => (Array.isArray(part) ? make("bdi", { textContent: part[0] }) : part)));
}

const colours = new Map();

function colour(name) {
  if (!colours.size || colours.theme !== ROOT.dataset.theme) {
    colours.clear();
    colours.theme = ROOT.dataset.theme;
  }
  if (!colours.has(name)) colours.set(name, getComputedStyle(ROOT).getPropertyValue(`--${name}`).trim());
  return colours.get(name);
}

const HEAT = 16;
const heatLevel = (share) => clamp(Math.floor(share * HEAT), 0, HEAT - 1);

// A canvas as large as its box, sharp on every screen; null while it has no size.
function sheet(canvas, width, height) {
  const density = ROOT.dataset.print ? 3 : Math.max(devicePixelRatio || 1, 1);
  if (width < 1 || height < 1) return null;
  if (canvas.width !== Math.round(width * density) || canvas.height !== Math.round(height * density)) {
    canvas.width = Math.round(width * density);
    canvas.height = Math.round(height * density);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(density, 0, 0, density, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

function fontOf(element, size, family) {
  return `${size}px ${getComputedStyle(element).getPropertyValue(`--${family}`)}`;
}

function cell(className, textContent, more = {}) { return make("span", { className, textContent, ...more }); }

// A bar from 0 to its share; `both`: around 0 in the middle.
function bar(share, hue, both = false) {
  const inner = make("i"), size = clamp(Math.abs(share) || 0, 0, 1) * (both ? 50 : 100);
  inner.style.width = `${size}%`;
  if (both) inner.style.marginLeft = `${share < 0 ? 50 - size : 50}%`;
  return make("span", { className: `bar ${both ? (share < 0 ? "lowers both" : "raises both") : hue}` }, inner);
}

// ---- the tooltip ----

const tip = {
  // `lines`: a title, then [label, value] pairs or texts.
  show(x, y, lines) {
    const box = find("tip");
    box.replaceChildren(...lines.map((line, at) => {
      if (Array.isArray(line)) return make("div", { className: "pair" }, make("span", { textContent: line[0] }), make("b", { textContent: line[1] }));
      return make("div", { className: at ? "more" : "first", textContent: line });
    }));
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    box.style.left = `${clamp(x + 14, 8, Math.max(innerWidth - width - 8, 8))}px`;
    box.style.top = `${y + height + 22 > innerHeight ? Math.max(y - height - 12, 8) : y + 18}px`;
  },
  hide() { find("tip").hidden = true; },
};

// `lines(event)` gives what to say of what is under the pointer, or null.
function onHover(element, lines) {
  element.addEventListener("pointermove", (event) => {
    const said = lines(event);
    if (said) event.stopPropagation();
    if (said) tip.show(event.clientX, event.clientY, said);
    else tip.hide();
  });
  for (const name of ["pointerleave", "pointercancel"]) element.addEventListener(name, () => tip.hide());
}

function explainTerms() {
  for (const element of document.querySelectorAll("[data-term], [data-tip]")) {
    const lines = element.dataset.tip ? [element.dataset.tip] : TERMS[element.dataset.term];
    onHover(element, () => lines);
    element.addEventListener("focus", () => {
      if (!element.matches(":focus-visible")) return;
      const { left, bottom } = element.getBoundingClientRect();
      tip.show(left, bottom, lines);
    });
    element.addEventListener("blur", () => tip.hide());
    if (element.tagName !== "BUTTON") element.addEventListener("click", (event) => tip.show(event.clientX, event.clientY, lines));
  }
}

const TERMS = {
  surprisal: ["Surprise (surprisal)", "How unlikely the model thought this token: −ln p, in nats. 0.7 is a coin toss, 7 is one in a thousand."],
  entropy: ["Entropy", "How unsure the model was before it chose: −Σ p ln p over all tokens, in nats. 0 is certain; 2.3 is like ten equal choices."],
  attention: ["Attention", "From which earlier tokens a head brought information to this place. The shares of a head sum to 100 %, to less where the model has a learned sink; many heads rest on the first token when they have nothing to do."],
  candidates: ["Candidates", "The model’s most likely tokens for this place, before any change by sampling; ● is the one that was chosen. An arrow leads to the probability after temperature and filters; “cut” means that these left nothing of it."],
  lens: ["Logit lens", "What the model would predict next if it ended after a layer: its residual stream goes through the final norm and the output matrix. Go up a column to see the answer form: ◇ first layer with the final answer, ◆ from here on all layers have it (a line, where all tokens are in sight)."],
  residual_norm: ["Residual norm", "Size of the residual stream after each layer. It usually grows from layer to layer."],
  attention_norm: ["Attention norm", "Size of what the attention of a layer adds to the residual stream."],
  mlp_norm: ["MLP norm", "Size of what the MLP of a layer adds to the residual stream."],
  attention_entropy: ["Attention entropy", "How widely the heads of a layer spread their attention: −Σ a ln a, in nats, the mean over its heads. 0 means one token only."],
  heads: ["Heads", "One cell a head, quiet to strong. Entropy: how many tokens it looks at, in nats, in the colours of the text. Relative entropy: the same as a share of the most that is possible. Attention sink: the share that rests on the first token, or on a learned sink. A click selects the head, and shows its attention on the text."],
  attribution: ["Where the logit comes from", "What the embedding and the attention and MLP of each layer add to the logit of the token, with the scale of the final norm held: the bars sum to the logit. Choose another token, and it is what decided between the two: the difference of their logits. Direct effects only; what later layers make of a part is counted with them."],
  sampling: ["Sampling", "Each stage from the model’s own distribution (raw) down: how many tokens it left, the share of the probability that these had before it, the entropy after it in nats, and the probability of the token that was chosen."],
  distribution: ["Probability by rank", "All tokens sorted by their probability, in bins of ranks: what each bin holds, and after the arrow what sampling left in it."],
  neurons: ["Neurons", "The neurons of the selected layer’s MLP with the largest activation, and the tokens whose logits each one raises and lowers most, by its own effect through the final norm and the head."],
  router: ["Experts", "In a mixture of experts: those that the router of each layer selected for this token, with the weight of each one’s output."],
  health: ["Health", "What often goes wrong: numbers that are not finite, layers that add nothing, attention that rests on the first token, text that repeats itself. ✓ passed, ! failed, – not known; then the number and the limit that it is judged by."],
  input: ["Input attribution", "What each earlier token has to do with the logit of one token, in logits: above 0 it raises the logit. The tokens with the largest scores, in the order of the text."],
  sweep: ["Sweep", "Each site was ablated alone in a pass of its own over the prompt. Blue: without it the target’s logit falls, so that it raises the target; orange: it lowers it."],
  rank: ["Rank", "How many tokens the model thought more likely; 0 is the most likely one."],
  forced: ["Forced", "Put there by the user, not drawn by the model."],
};
