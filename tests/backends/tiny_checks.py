"""What mav shows of a tiny model against computations of its own, at every layer and token: figures only, no verdict but the limits.

Errors are in units of the float type's own rounding (its eps), so that one limit holds in fp32 and bfloat16: of sums and norms relative
to the vectors that go in, of logits and rows relative to the error that transformers' own pass in that float type makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from backends.tiny_configs import TOKENS, VOCAB, thresholds
from backends.tiny_models import CannotBuildError, exacter, jittered, tiny_model
from backends.tiny_names import NamedParts
from backends.tiny_reasons import in_words
from backends.tiny_reference import FullPass, Recorder, full_pass, generated, zeroed
from openmav.backends.base import Frame
from openmav.backends.sites import SITES
from openmav.backends.transformers import TransformersBackend, wrap
from openmav.backends.transformers.decoding import decoder
from openmav.errors import MavError, UsageError
from openmav.measures import attention_entropy, attention_norm, mlp_norm, residual_norm
from openmav.measures.base import Context
from openmav.settings.interventions import parse

DECODED = 6
PROMPT = TOKENS - DECODED
PIECE = 200  # tokens of the prompt that are read at a time
BACK = 3
GONE = "gone"
MASKED = -1e30  # logits below this are masked
NOISE = 64  # positions at which the error of a float type is measured
PARTS = ("attention.out", "mlp.out", "other.out")
LIMITS = {  # what each figure may be; see the columns of docs/architectures.md
    "logits": 4.0,
    "generate": 4.0,
    "tokens": 0.0,
    "told": 0.0,
    "rows": 4.0,
    "entropy": 4.0,
    "residual": 0.0,
    "parts": 2.0,
    "named": 2.0,
    "sum": 1.0,
    "norms": 4.0,
    "lens": 4.0,
    "back": 0.0,
    "bits": 0.0,
    "left": 0.0,
    "ablation": 4.0,
}


@dataclass
class Report:
    """Of one type in one float type. `errors`: the largest over layers and tokens. `none`: {what: reason}, as mav says it."""

    errors: dict[str, float] = field(default_factory=dict)
    none: dict[str, str] = field(default_factory=dict)
    refused: str = ""  # mav does not open the model, and why
    cannot: str = ""  # transformers itself does not build it, or can't run it on text alone
    failed: str = ""  # what was raised
    notes: tuple[str, ...] = ()
    thresholds: dict[str, int] = field(default_factory=dict)  # lengths at which the model changes something, all crossed
    layers: int = 0
    own: float = 0.0  # the error of transformers' own full pass in this float type, in eps

    @property
    def wrong(self) -> dict[str, float]:
        """The figures that are over their limit."""
        return {name: error for name, error in self.errors.items() if not error <= LIMITS[name]}

    @property
    def good(self) -> bool:
        return not self.wrong and not self.failed

    def worst(self, name: str, error: float) -> None:
        self.errors[name] = max(self.errors.get(name, 0.0), error) if error == error else error


def text() -> list[int]:
    """The prompt: ordinary tokens, none of the special ones at both ends of the vocabulary."""
    return torch.randint(3, VOCAB - 40, (PROMPT,), generator=torch.Generator().manual_seed(11)).tolist()


def examine(model_type: str, dtype: torch.dtype) -> Report:
    """Everything about one type in one float type."""
    report = Report()
    try:
        model, plain, tried = (tiny_model(model_type, dtype) for _ in range(3))
    except CannotBuildError as error:
        report.cannot = f"transformers does not build it: {error}"
        return report
    report.thresholds = thresholds(model.config)
    report.cannot = _cannot(tried)
    before = _traces(model)
    try:
        with _short_pieces():
            backend = wrap(model, None, name=model_type)
    except MavError as error:
        report.refused = str(error)
        return report
    if report.cannot:
        backend.close()
        report.failed = f"mav opens it, but {report.cannot}" if dtype == torch.float32 else ""
        return report
    report.notes, report.layers = backend.info.notes, len(backend.anatomy.layers)
    with _short_pieces():
        _examine(backend, model_type, plain, report)
    backend.close()
    report.worst("left", float(sum(before.get(key, value) != value for key, value in _traces(model).items())))
    _reasons(backend, report)
    return report


def _cannot(model: PreTrainedModel) -> str:
    """Why this is no model that transformers itself can run and continue on text alone."""
    if model.config.is_encoder_decoder:
        return "it is an encoder with a decoder"
    if not getattr(model.config, "is_decoder", True):
        return "it is an encoder: each token sees those after it"
    try:
        logits = full_pass(model, text()).logits
        tokens, _ = generated(model, text(), 2)
    except Exception as error:
        return f"transformers can't continue a text with it: {in_words(error)}"
    if not bool(logits.isfinite().all()):
        return "transformers' own pass over the text computes NaN"
    return "" if len(tokens) == 2 else "transformers does not generate text with it"


@contextmanager
def _short_pieces() -> Iterator[None]:
    """Within this block mav reads prompts in pieces of PIECE tokens, so that a short prompt has two."""
    usual = decoder.CHUNK
    decoder.CHUNK = PIECE
    try:
        yield
    finally:
        decoder.CHUNK = usual


def _examine(backend: TransformersBackend, model_type: str, plain: PreTrainedModel, report: Report) -> None:
    prompt = text()
    frames, tokens = _run(backend, prompt)
    _against_transformers(backend, model_type, plain, prompt, tokens, frames, report)
    _inside(backend, model_type, prompt, tokens, frames, report)
    _going_back(backend, tokens, frames, report)
    bare = _feed(backend, prompt, tokens, frozenset())
    report.worst("bits", float(sum(not torch.equal(a.logits, b.logits) for a, b in zip(frames, bare, strict=True))))
    _ablated(backend, plain, prompt, report)


def _run(backend: TransformersBackend, prompt: Sequence[int]) -> tuple[list[Frame], list[int]]:
    """The prompt and DECODED greedy tokens; a frame each, but none for the last token."""
    frames, tokens = [backend.prefill(prompt, SITES)], list[int]()
    _settle(frames[-1])
    while len(tokens) < DECODED:
        tokens.append(int(frames[-1].logits.argmax()))
        if len(tokens) < DECODED:
            frames.append(backend.decode_one_token(tokens[-1], SITES))
            _settle(frames[-1])
    return frames, tokens


def _feed(backend: TransformersBackend, prompt: Sequence[int], tokens: Sequence[int], want: frozenset[str]) -> list[Frame]:
    return [backend.prefill(prompt, want), *(backend.decode_one_token(token, want) for token in tokens[:-1])]


def _settle(frame: Frame) -> None:
    """Copy what the next forward pass may overwrite."""
    frame.sites = {site: [None if row is None else row.clone() for row in rows] for site, rows in frame.sites.items()}


# ---- against transformers' own passes ---------------------------------------------------------------------------------------


def _against_transformers(
    backend: TransformersBackend,
    model_type: str,
    plain: PreTrainedModel,
    prompt: Sequence[int],
    tokens: Sequence[int],
    frames: Sequence[Frame],
    report: Report,
) -> None:
    """Logits and rows against a full pass and `generate`; the pass in fp32 with the same weights says how exact this float type is."""
    paths = {id(module): path for path, module in backend.model.named_modules()}
    owners = [None if m is None else paths.get(id(m), GONE) for m in backend.anatomy.attention_modules]
    if GONE in owners:
        report.failed = "an attention module that mav found is not in the model any more"
        return
    named = [path for path in dict.fromkeys(owners) if path is not None]
    ids = [*prompt, *tokens[:-1]]
    copy = _other_copies(plain, model_type)  # each used once: some models keep a state
    other = copy()
    passes = [full_pass(one, ids, named) for one in (plain, other)]
    theirs, exact = passes if other.dtype != plain.dtype else passes[::-1]  # a copy in the same float type is none the exacter
    chosen, logits = generated(tiny_model(model_type, plain.dtype), prompt, DECODED)  # a copy of its own: some keep a state
    same = next((i for i, (a, b) in enumerate(zip(tokens, chosen, strict=True)) if a != b), DECODED)  # later ones follow another text
    eps = torch.finfo(backend.model.dtype).eps
    at, last = slice(PROMPT - 1, PROMPT - 1 + DECODED), slice(PROMPT - NOISE, None)
    mine, full, true = torch.stack([frame.logits for frame in frames]), theirs.logits[at], exact.logits[at]
    report.own = max(_error(full, true) / eps, _error(theirs.logits[last], exact.logits[last]) / eps, _least(eps, 16, 1))
    cached = max(report.own, _cached_error(copy(), prompt, chosen, logits) / eps)
    drift = _error(logits[: same + 1], full[: same + 1]) / eps  # of `generate` from the full pass
    report.worst("tokens", float(_far_apart(mine[same], chosen[same], tokens[same], cached * eps)) if same < DECODED else 0.0)
    report.worst("generate", _error(mine[: same + 1], logits[: same + 1]) / eps / cached)
    if drift > LIMITS["generate"] * cached:
        report.none["full pass"] = f"transformers' generate is not its full pass (off by {drift * eps:.1g})"
        report.worst("told", float(not any("without a cache" in note for note in backend.info.notes)))
    else:
        report.worst("logits", _error(mine, true) / eps / report.own)
        _rows(owners, frames, theirs, exact, eps, report)


def _other_copies(plain: PreTrainedModel, model_type: str) -> Callable[[], PreTrainedModel]:
    """Makes the model in a wider float type; where it can't compute in one, with weights changed by their rounding."""
    for wider in (torch.float64, torch.float32):
        if wider != plain.dtype:
            try:
                if not bool(full_pass(exacter(plain, model_type, wider), text()[:PIECE]).logits.isfinite().all()):
                    continue  # some mask with the least number of fp32
            except RuntimeError:  # code that asks for float32 in so many words
                continue
            return partial(exacter, plain, model_type, wider)
    return partial(jittered, plain, model_type)


def _cached_error(other: PreTrainedModel, prompt: Sequence[int], chosen: Sequence[int], logits: Tensor) -> float:
    """What `generate` in this float type is off from that of the other copy, as long as both choose the same tokens."""
    theirs, exact = generated(other, prompt, DECODED)
    same = next((i for i, (a, b) in enumerate(zip(chosen, theirs, strict=True)) if a != b), DECODED)
    return _error(logits[: same + 1], exact[: same + 1])


def _least(eps: float, single: float, half: float) -> float:
    """The least error in eps that is expected: in fp32 there is no exacter pass to compare with."""
    return single if eps < 1e-6 else half


def _error(found: Tensor, expected: Tensor) -> float:
    """Of the difference, relative; what is masked by the most negative number counts only if it is masked in one of them."""
    masked = expected < MASKED
    if not torch.equal(masked, found < MASKED):
        return float("inf")
    found, expected = (x.double().masked_fill(masked, 0) for x in (found, expected))
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


def _far_apart(logits: Tensor, a: int, b: int, error: float) -> bool:
    """Whether two tokens' logits differ by more than the float type's error can explain."""
    return float((logits[a] - logits[b]).abs()) > 8 * error * float(logits.abs().max())


def _rows(owners: Sequence[str | None], frames: Sequence[Frame], theirs: FullPass, exact: FullPass, eps: float, report: Report) -> None:
    """Attention rows and their entropy against those of an exacter pass, in units of what eager attention in this float type is off."""
    off = {"rows": 0.0, "entropy": 0.0}
    known = [path for path in dict.fromkeys(owners) if path is not None and path in exact.rows]
    for path in known:
        full, true = (one.rows[path][:, PROMPT - NOISE :] for one in (theirs, exact))
        off["rows"] = max(off["rows"], float((full - true).abs().max()))
        off["entropy"] = max(off["entropy"], float((_entropy(full) - _entropy(true)).abs().max()))
    own = {"rows": max(off["rows"] / eps, _least(eps, 4, 1)), "entropy": max(off["entropy"] / eps, _least(eps, 16, 2))}
    for number, frame in enumerate(frames):
        entropies = attention_entropy.compute(frame, _context(frame))
        for layer, (path, row) in enumerate(zip(owners, frame.sites["attention.probs"], strict=True)):
            if path not in known or row is None:
                continue
            others = frame.other_keys[layer] if frame.other_keys else 0
            true = _row(exact.rows[path], PROMPT - 1 + number, row.shape[-1], others)
            if true is None or true.shape != row.shape:
                report.worst("rows", float("inf"))
                continue
            report.worst("rows", float((row.cpu() - true).abs().max()) / eps / own["rows"])
            shown = torch.as_tensor(entropies[layer][: len(true)])
            report.worst("entropy", float((shown - _entropy(true)).abs().max()) / eps / own["entropy"])


def _entropy(rows: Tensor) -> Tensor:
    """[..., keys] -> [...] nats."""
    return -(rows * rows.clamp_min(1e-38).log()).sum(-1)


def _row(rows: Tensor, position: int, keys: int, others: int) -> Tensor | None:
    """[heads, keys]: the row of a position, of a window its last keys, after `others` keys that are no token's.

    None where keys outside of these have weight.
    """
    row, blocks = rows[:, position, : position + 1], rows[:, position, rows.shape[1] :]
    outside = row[:, : max(row.shape[-1] - (keys - others), 0)]
    if bool((outside != 0).any()) or bool((blocks[:, others:] != 0).any()):
        return None
    window = nn.functional.pad(row[:, outside.shape[-1] :], (max(keys - others - row.shape[-1], 0), 0))
    return torch.cat([blocks[:, :others], window], -1)


# ---- against hooks of our own in the same pass -----------------------------------------------------------------------------


def _inside(
    backend: TransformersBackend, model_type: str, prompt: Sequence[int], tokens: Sequence[int], frames: Sequence[Frame], report: Report
) -> None:
    """Once more with hooks of our own: the same bits, and what mav shows is what those modules gave."""
    anatomy, eps = backend.anatomy, torch.finfo(backend.model.dtype).eps
    sides = (anatomy.attention, anatomy.mlp, anatomy.other or (None,) * len(anatomy.layers))
    terms = [term.module for side in sides for part in side for term in part or () if term.module is not None]
    named = [NamedParts(model_type, layer, backend.model.config) for layer in anatomy.layers]
    recorder = Recorder(anatomy.layers, [*anatomy.layers, *terms, *(module for parts in named for module in parts.modules)])
    carries = anatomy.carry or (1.0,) * len(anatomy.layers)
    for number, frame in enumerate(frames):
        with recorder.recording():
            again = backend.prefill(prompt, SITES) if number == 0 else backend.decode_one_token(tokens[number - 1], SITES)
        report.worst("bits", float(not torch.equal(again.logits, frame.logits)))
        if report.errors["bits"]:
            return
        norms = {m.__name__: m.compute(frame, _context(frame)) for m in (residual_norm, attention_norm, mlp_norm)}
        for layer, module in enumerate(anatomy.layers):
            shown = {site: rows[layer] for site, rows in frame.sites.items()}
            _residual(shown, recorder.taken.get(module), recorder.given.get(module), report)
            _norms(shown, {name.rpartition(".")[2]: float(values[layer]) for name, values in norms.items()}, report)
            for site, side in zip(PARTS, sides, strict=True):
                value, part = shown[site], side[layer]
                if value is not None and part is not None:
                    total = sum(t.coefficient * (1.0 if t.module is None else recorder.given[t.module].double()) for t in part)
                    report.worst("parts", _error(value.double(), total) / eps)
            if layer not in backend.missing.get("other.out", {}):
                sums_up(shown, carries[layer], eps, report)
            reasons = {site: backend.missing.get(site, {}).get(layer, "") for site in PARTS}
            _named(shown, reasons, named[layer], recorder.given, eps, report)
        if frame.head is not None and shown["residual.after"] is not None:
            report.worst("lens", _error(frame.head.logits(shown["residual.after"][None])[0], frame.logits) / eps)


def _residual(shown: Mapping[str, Tensor | None], taken: Tensor | None, given: Tensor | None, report: Report) -> None:
    for site, expected in (("residual.before", taken), ("residual.after", given)):
        value = shown[site]
        if value is not None and expected is not None and value.shape == expected.shape:
            report.worst("residual", _error(value.double(), expected.double()))


def _norms(shown: Mapping[str, Tensor | None], norms: Mapping[str, float], report: Report) -> None:
    """The norms that the panels show, against torch's in double precision."""
    for name, site in (("residual_norm", "residual.after"), ("attention_norm", "attention.out"), ("mlp_norm", "mlp.out")):
        value = shown[site]
        if value is not None:
            true = float(value.double().norm())
            report.worst("norms", abs(norms[name] - true) / true / torch.finfo(torch.float32).eps if true else abs(norms[name]))


def sums_up(shown: Mapping[str, Tensor | None], carry: float | Tensor, eps: float, report: Report) -> None:
    """carry * what came in + what was added = what went out, to the rounding of the float type."""
    before, after = shown["residual.before"], shown["residual.after"]
    parts = [shown.get(site) for site in PARTS]
    if before is None or after is None or all(part is None for part in parts):
        return
    if any(x.shape != before.shape for x in (after, *parts) if x is not None):  # the stream is not one vector a token
        return
    vectors = [carry * before.double(), *(part.double() for part in parts if part is not None)]
    scale = max(float(v.norm()) for v in (*vectors, after.double()))
    report.worst("sum", float((sum(vectors) - after.double()).norm()) / scale / eps)


def _named(
    shown: Mapping[str, Tensor | None],
    reasons: Mapping[str, str],
    named: NamedParts,
    given: Mapping[nn.Module, Tensor],
    eps: float,
    report: Report,
) -> None:
    """What mav shows against the modules that the modeling file names, which must themselves explain the layer in fp32."""
    sums = named.sums(given)
    exact = eps < 1e-6 and named.whole and shown["residual.before"] is not None and shown["residual.after"] is not None
    if exact:
        sums_up({**shown, **dict(zip(PARTS, [*sums, None], strict=True))}, 1.0, eps, check := Report())
        if check.wrong or not check.errors:
            assert not named.sure, f"these are not the modules that add to the residual stream: off by {check.errors} eps"
            return
    if not (named.sure or exact):
        return
    for site, expected in zip(PARTS, sums):
        if shown[site] is None:
            report.worst("named", float("inf") if expected is not None and reasons[site].startswith("no ") else 0.0)
        else:
            report.worst("named", float("inf") if expected is None else _error(shown[site].double(), expected) / eps)


def _context(frame: Frame) -> Context:
    probs = frame.logits.softmax(-1)
    return Context(frame.logits, probs, probs, probs.argsort(descending=True), int(probs.argmax()))


# ---- what can be done with it ----------------------------------------------------------------------------------------------


def _going_back(backend: TransformersBackend, tokens: Sequence[int], frames: Sequence[Frame], report: Report) -> None:
    """Take tokens back and feed them again: the same bits."""
    backend.rewind(backend.length - BACK)
    again = [backend.decode_one_token(token, SITES) for token in tokens[-1 - BACK : -1]]
    report.worst("back", max(_error(b.logits, a.logits) for a, b in zip(frames[-BACK:], again, strict=True)))


def _ablated(backend: TransformersBackend, plain: PreTrainedModel, prompt: Sequence[int], report: Report) -> None:
    """Layer 1 without its MLP, against a pass in which hooks of our own set it to 0."""
    if backend.model.dtype != torch.float32 or "full pass" in report.none:
        return
    wanted = parse("ablate L1.mlp")
    why = backend.why_not(wanted)
    if why is not None:
        report.none["ablation"] = why
        return
    paths = {id(module): path for path, module in backend.model.named_modules()}
    modules = [paths[id(term.module)] for term in backend.anatomy.mlp[1] or () if term.module is not None]
    try:
        touched = backend.intervened([wanted], prompt)
    except UsageError as error:
        report.none["ablation"] = str(error)
        return
    with zeroed(plain, modules):
        expected = full_pass(plain, prompt).logits[-1]
    frame = touched.prefill(prompt, frozenset())
    touched.close()
    report.worst("ablation", _error(frame.logits, expected) / torch.finfo(torch.float32).eps / report.own)


# ---- what mav leaves and what it does not show -----------------------------------------------------------------------------


def _traces(model: nn.Module) -> dict[str, object]:
    """All that a backend might leave behind in a model."""
    hooks = {f"hooks on {n or 'model'}": (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()}
    forwards = {f"forward of {n or 'model'}": "forward" in vars(m) for n, m in model.named_modules()}
    return {**hooks, **forwards, "training": model.training, "attention": model.config._attn_implementation}


def _reasons(backend: TransformersBackend, report: Report) -> None:
    """{site: reason}, with how many layers it holds for."""
    for site, layers in backend.missing.items():
        reasons = list(layers.values())
        if reasons and site not in ("attention.scores", "head.direction", "head.neurons", "mlp.hidden", "router.experts", "router.weights"):
            report.none[site] = "; ".join(f"{r} ({reasons.count(r)} of {report.layers})" for r in dict.fromkeys(reasons))
