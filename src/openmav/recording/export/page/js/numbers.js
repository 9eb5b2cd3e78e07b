// ---- numbers: the same digits as the app shows ----

const LESS = 0, ZERO = 1001, NOTHING = 65535; // of probabilities in tenths of a percent, as pack.py writes them

// toFixed rounds an exact tie up; Python, and so the app, to the even digit.
function fixed(value, digits) {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  const doubled = value * 2 ** (digits + 1);
  const tie = Number.isInteger(doubled) && doubled % 2 !== 0;
  const text = value.toFixed(digits);
  if (!tie || Number(text.at(-1)) % 2 === 0) return text;
  return (value - Math.sign(value) * 0.25 / 10 ** digits).toFixed(digits);
}

function percent(p) {
  if (!Number.isFinite(p)) return fixed(p, 1);
  return p > 0 && p < 0.0005 ? "<0.1 %" : `${fixed(p * 100, 1)} %`;
}

// A probability of one token, with an exponent where it would be shown as 0.
function likelihood(p) {
  if (!(p > 0 && p < 0.0005)) return percent(p);
  const [digits, power] = (p * 100).toExponential(1).split("e");
  return `${digits} × 10${superscript(power)} %`;
}

function superscript(number) {
  return [...number].map((one) => (one === "-" ? "⁻" : one === "+" ? "" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[one])).join("");
}

function percentOf(code) {
  if (code === NOTHING) return "none";
  if (code === LESS) return "<0.1 %";
  return `${fixed(code === ZERO ? 0 : code / 10, 1)} %`;
}

function shareOf(code) {
  return code === NOTHING ? NaN : code === LESS || code === ZERO ? 0 : code / 1000;
}

// Of an entry of attention: its share in tenths of a percent, and the eighth of the most that colours it.
const shareCode = (code) => (code === NOTHING ? NOTHING : code >> 3);
const eighthOf = (code) => (code === NOTHING ? 0 : code & 7);

function stepOf(nats) {
  return Number.isFinite(nats) ? SURPRISE_EDGES.filter((edge) => nats >= edge).length : -1;
}

function clamp(value, low, high) {
  return Math.max(low, Math.min(value, high));
}

function signed(value, digits = 2) {
  const text = fixed(value, digits);
  return Number(text) === 0 ? fixed(0, digits) : value > 0 ? `+${text}` : text;
}
