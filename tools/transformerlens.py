"""Compare mav with TransformerLens, which computes the same models with code of its own.

python tools/transformerlens.py                            # print the table; exit with 1 if a figure is out of tolerance
python tools/transformerlens.py gpt2 models/FOLDER         # these alone: families of the test suite, folders of models
python tools/transformerlens.py --json                     # the figures as JSON
python tools/transformerlens.py --write docs/exactness.md

`make exactness` makes an environment for it. TransformerLens 3 is wanted: from 4.0 on it runs transformers' own modules, and is
no witness of its own any more.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from transformer_lens import HookedTransformer, HookedTransformerConfig  # noqa: E402
from transformer_lens.loading_from_pretrained import convert_hf_model_config, get_pretrained_state_dict  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel  # noqa: E402

from backends.families import build  # noqa: E402
from openmav.backends.base import Frame  # noqa: E402
from openmav.backends.transformers import wrap  # noqa: E402
from openmav.measures import logit_lens  # noqa: E402
from openmav.measures.base import Context  # noqa: E402

# Families that TransformerLens knows and can build here, with what it takes for granted about their sizes.
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt_neo": {"intermediate_size": 256},
    "gpt_neox": {},
    "gptj": {},
    "opt": {},
    "bloom": {},
    "llama": {},
    "mistral": {},
    "mixtral": {},
    "qwen2": {},
    "qwen3": {},
    "phi3": {},
    "gemma2": {},
    "gemma3_text": {},
    "gpt_oss": {},
}
BY_NAME = {"Gemma2ForCausalLM": "google/gemma-2-2b", "Gemma3ForCausalLM": "google/gemma-3-270m"}  # known to it by a model's name only
REAL = ROOT / "models" / "SmolLM2-135M-Instruct"
TEXT = "The capital of France is Paris. The river that flows through it is called the Seine."
HOOKS = {
    "residual": ("residual.after", "hook_resid_post"),
    "attention": ("attention.out", "hook_attn_out"),
    "mlp": ("mlp.out", "hook_mlp_out"),
    "rows": ("attention.probs", "attn.hook_pattern"),
}
DECODED = 8  # tokens that mav reads one by one, from its cache
CONTEXT = 256  # tokens that TransformerLens makes room for: its masks grow with the square
TOLERANCE = 1e-4  # relative to the largest number of the layer
DISTINCT = 10 * TOLERANCE  # what a figure must at least be if mav were one layer off


@dataclass(frozen=True)
class Figures:
    """The largest differences over all positions and layers: relative to the largest number of the same layer there."""

    logits: float
    residual: float
    attention: float
    mlp: float
    rows: float
    lens: float
    lens_probs: float
    one_layer_off: float  # the smallest difference, over sites and layers, between mav's layer l and the witness's l + 1

    @property
    def good(self) -> bool:
        errors = (self.logits, self.residual, self.attention, self.mlp, self.rows, self.lens, self.lens_probs)
        return all(error <= TOLERANCE for error in errors) and self.one_layer_off >= DISTINCT  # False for NaN


# ---- the witness ---------------------------------------------------------------------------------------------------------


def witness(model: PreTrainedModel) -> HookedTransformer:
    """TransformerLens' own model with these weights: its own reading of the configuration, nothing folded or centred, fp32."""
    with tempfile.TemporaryDirectory(prefix="weights-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        name = BY_NAME.get(type(model).__name__, folder)
        (Path(folder) / "config.json").write_text(json.dumps(configuration(model)), encoding="utf-8")
        found = convert_hf_model_config(name)
        if name != folder:
            found |= sizes(model.config)
        found |= {
            "n_ctx": min(found["n_ctx"], CONTEXT),
            "tokenizer_name": None,
            "device": "cpu",
            "dtype": torch.float32,
            "init_weights": False,
        }
        config = HookedTransformerConfig.from_dict(found)
        hooked = HookedTransformer(config)
        weights = get_pretrained_state_dict(name, config, model)
    plain = {"fold_ln": False, "center_writing_weights": False, "center_unembed": False, "fold_value_biases": False}
    hooked.load_and_process_state_dict(weights, **plain)
    return hooked.eval()


def sizes(config: Any) -> dict[str, Any]:
    """How large a model is, in TransformerLens' words; all else of it is as TransformerLens knows it."""
    return {
        "d_model": config.hidden_size,
        "d_head": config.head_dim,
        "d_mlp": config.intermediate_size,
        "d_vocab": config.vocab_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_key_value_heads": config.num_key_value_heads,
        "n_ctx": config.max_position_embeddings,
        "window_size": config.sliding_window,
        "attn_types": ["local" if kind == "sliding_attention" else "global" for kind in config.layer_types],
    }


def configuration(model: PreTrainedModel) -> dict[str, Any]:
    """The model's configuration, with its context also under the name that older releases of transformers wrote."""
    found: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    found["architectures"] = [type(model).__name__]
    if "n_positions" in found:
        found["n_ctx"] = found["n_positions"]
    return found


@dataclass(frozen=True)
class Truth:
    """A whole text in one pass: `sites` {name: a tensor a layer}: [tokens, width], rows [heads, tokens, tokens]; `lens` [.., vocab]."""

    logits: Tensor
    sites: dict[str, list[Tensor]]
    lens: list[Tensor]


@torch.no_grad()
def truth(hooked: HookedTransformer, ids: list[int]) -> Truth:
    logits, cache = hooked.run_with_cache(torch.tensor([ids]))
    layers = range(hooked.cfg.n_layers)
    sites = {name: [cache[f"blocks.{layer}.{hook}"][0] for layer in layers] for name, (_, hook) in HOOKS.items()}
    lens = [hooked(x[None], start_at_layer=hooked.cfg.n_layers)[0] for x in sites["residual"]]  # what comes after the last layer
    return Truth(logits[0], sites, lens)


# ---- the comparison ------------------------------------------------------------------------------------------------------


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def at(name: str, value: Tensor, position: int) -> Tensor:
    """What a site holds at one position: [width], or the row [heads, keys] of its query."""
    return value[:, position, : position + 1] if name == "rows" else value[position]


def site(frame: Frame, name: str, layer: int) -> Tensor:
    """mav's value; a row that holds a sliding window only is filled up with zeros on the left."""
    value = frame.sites[HOOKS[name][0]][layer]
    assert value is not None, f"mav has no {HOOKS[name][0]} of layer {layer}"
    return torch.nn.functional.pad(value, (frame.tokens - value.shape[-1], 0)) if name == "rows" else value


def compare_lens(frame: Frame, theirs: list[Tensor], position: int) -> tuple[float, float]:
    """Of the measure's logits, for the tokens that it names and, sorted, for the witness's likeliest; and of its probabilities."""
    probs = frame.logits.softmax(-1)
    context = Context(frame.logits, probs, probs, frame.logits.argsort(descending=True), token_id=int(frame.logits.argmax()))
    found = {name: torch.from_numpy(value) for name, value in logit_lens.compute(frame, context).items()}
    logit_errors, prob_errors = [], []
    for layer, rows in enumerate(theirs):
        expected, likely = rows[position], rows[position].softmax(-1)
        ids, logits = found["logit_lens.token_ids"][layer], found["logit_lens.logits"][layer]
        logit_errors += [
            float((logits - named).abs().max() / expected.abs().max()) for named in (expected[ids], expected.topk(len(ids)).values)
        ]
        prob_errors.append(relative(found["logit_lens"][layer], likely[ids]))
    return max(logit_errors), max(prob_errors)


def compare(model: PreTrainedModel, ids: list[int]) -> Figures:
    """mav reads a prompt, then DECODED tokens one by one; TransformerLens reads all of them at once."""
    expected = truth(witness(model), ids)
    backend = wrap(model, None)
    want = frozenset(name for name, _ in HOOKS.values())
    errors: dict[str, list[float]] = {name: [] for name in ("logits", *HOOKS, "lens", "lens_probs")}
    shifted: list[float] = []
    for position in range(len(ids) - DECODED - 1, len(ids)):
        frame = backend.decode_one_token(ids[position], want) if backend.length else backend.prefill(ids[: position + 1], want)
        errors["logits"].append(relative(frame.logits, expected.logits[position]))
        for name in HOOKS:
            ours = [site(frame, name, layer) for layer in range(backend.info.layers)]
            theirs = [at(name, value, position) for value in expected.sites[name]]
            errors[name] += [relative(a, b) for a, b in zip(ours, theirs, strict=True)]
            shifted += [relative(a, b) for a, b in zip(ours, theirs[1:])]
        for name, error in zip(("lens", "lens_probs"), compare_lens(frame, expected.lens, position)):
            errors[name].append(error)
    backend.close()
    return Figures(**{name: max(found) for name, found in errors.items()}, one_layer_off=min(shifted))


def measure(name: str) -> Figures:
    """The figures of a family of the suite, random weights, or of the model in a folder."""
    if name in FAMILIES:
        ids = torch.randint(3, 128, (21,), generator=torch.Generator().manual_seed(11)).tolist()
        return compare(build(name, **FAMILIES[name]), ids)
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()
    return compare(model, AutoTokenizer.from_pretrained(name)(TEXT)["input_ids"])


# ---- the report ----------------------------------------------------------------------------------------------------------

COLUMNS = ("model", "logits", "residual", "attention", "MLP", "rows", "lens", "lens p", "one layer off")
PAGE = f"""# Exactness

mav's numbers against [TransformerLens](https://github.com/TransformerLensOrg/TransformerLens) {{transformer-lens}}, which
computes the same models with code of its own: it reads the configuration itself and runs the weights through its own layers,
here with nothing folded or centred. This page is made by `python tools/transformerlens.py --write docs/exactness.md`;
`make exactness` makes an environment for it and runs the same comparison. torch {{torch}}, transformers {{transformers}}, fp32,
on the CPU.

mav reads a prompt and then {DECODED} more tokens one by one, from its cache; TransformerLens reads the whole text at once. The last
token of the prompt and each of the {DECODED} are compared in every layer. A figure is the largest difference, relative to the largest
number of the same layer at the same token; {TOLERANCE:g} is allowed.

- **logits**: of the next token, the whole vocabulary.
- **residual**, **attention**, **MLP**: the residual stream after a layer, and what attention and MLP add to it, against
  `hook_resid_post`, `hook_attn_out` and `hook_mlp_out`.
- **rows**: the attention rows of all heads, against the last row of `hook_pattern`.
- **lens**: the logit lens' logits for the tokens that it names, and in their order against the largest ones of what
  TransformerLens makes of its own residual stream after its last layer: final norm, unembedding, soft cap.
- **lens p**: the probabilities of these tokens.
- **one layer off**: the smallest figure of any layer if mav's layers were counted one off. It shows that the comparison can fail,
  and must be at least {DISTINCT:g}.

The families are tiny random models of the test suite, whose norms and biases are not left at 1 and 0; the last model is real.
TransformerLens knows Gemma by the names of its released models: of these it takes all but the sizes.

"""


def table(figures: dict[str, Figures]) -> str:
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for name, found in figures.items():
        cells = [f"{value:.0e}".replace("e-0", "e-") for value in asdict(found).values()]
        lines.append(f"| {Path(name).name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=[*FAMILIES, *([str(REAL)] if REAL.exists() else [])], help="default: all")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page with the table")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # TransformerLens warns of weights that a model has none of, such as Bloom's positions
    figures = {name: measure(name) for name in options.models}
    print(json.dumps({n: {**asdict(f), "good": f.good} for n, f in figures.items()}) if options.json else table(figures))
    if options.write:
        versions = {name: version(name) for name in ("transformer-lens", "torch", "transformers")}
        options.write.write_text(PAGE.format_map(versions) + table(figures) + "\n", encoding="utf-8")
    return 0 if all(f.good for f in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
