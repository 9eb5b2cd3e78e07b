"""Train the bundled demo model from a plain-text file, from scratch, on a CPU.

    python tools/train_demo_model.py --text austen.txt --out build/demo
    python tools/train_demo_model.py --text austen.txt --out build/demo --export src/openmav/demo/model

The text is unwrapped to one line a paragraph and split into chapters; the last 5 % of its characters are held out. A
byte-level BPE tokenizer is fitted to the rest, and a Llama-style model is trained on it: first on short windows, then, for
the last stretch, on windows as long as the context that the model claims. Everything is seeded, and `--out` holds a
checkpoint from which the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END = "<|endoftext|>"
HEADING = re.compile(r"^(VOLUME|CHAPTER|Chapter)\b.*$", re.MULTILINE)


@dataclass(frozen=True)
class Recipe:
    """All that decides the outcome; kept in the checkpoint, printed, and copied into the model card."""

    vocabulary: int = 2048
    width: int = 256
    layers: int = 6
    heads: int = 8
    kv_heads: int = 4
    intermediate: int = 640
    context: int = 2048
    steps: int = 1500
    tokens_per_step: int = 4096
    window: int = 256
    long_share: float = 0.12  # of the steps, at the end, on windows of the whole context
    warmup: int = 60
    cooldown: float = 0.6  # of the steps, over which the learning rate falls to zero
    matrix_lr: float = 0.015  # Muon, for the matrices of the layers
    other_lr: float = 0.004  # AdamW, for embedding and norms
    weight_decay: float = 0.1
    held_out: float = 0.05
    seed: int = 7


def unwrap(text: str) -> str:
    """One paragraph a line, a blank line between paragraphs, headings kept."""
    paragraphs = re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("_", ""))
    lines = (" ".join(p.split()) for p in paragraphs)
    return "\n\n".join(line for line in lines if line)


def chapters(text: str) -> list[str]:
    """Cut the unwrapped text before every heading, so that each piece ends where a chapter ends."""
    starts = [0, *(m.start() for m in HEADING.finditer(text)), len(text)]
    pieces = (text[a:b].strip() for a, b in itertools.pairwise(starts))
    return [piece for piece in pieces if piece]


def fit_tokenizer(pieces: list[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE; numbers and punctuation are split as in GPT-2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(pieces, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, pieces: list[str]) -> torch.Tensor:
    """All pieces as one row of ids, each closed by the end token."""
    end = tokenizer.token_to_id(END)
    ids = [i for encoding in tokenizer.encode_batch(pieces) for i in (*encoding.ids, end)]
    return torch.tensor(ids, dtype=torch.long)


def build_model(recipe: Recipe, tokenizer: Tokenizer) -> LlamaForCausalLM:
    end = tokenizer.token_to_id(END)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=recipe.width,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=end,
    )
    torch.manual_seed(recipe.seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # each block starts by adding nothing
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return model


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised by five Newton-Schulz steps (Jordan et al., 2024), in fp32.

    torch.optim.Muon does the same in bfloat16, which a CPU without that type computes thirty times more slowly.
    Matrices of one shape go through the iteration together.
    """

    def __init__(self, matrices: list[torch.nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for p in group["params"]:
                shapes.setdefault(p.shape, []).append(p)
            for shape, params in shapes.items():
                update = orthogonal(torch.stack([self._momentum(p, group["momentum"]) for p in params]))
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for p, u in zip(params, update, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(u, alpha=-scale)

    def _momentum(self, p: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        """Nesterov's look ahead on the running mean of the gradient."""
        assert p.grad is not None
        buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
        buffer.lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(buffer, momentum)


def orthogonal(x: torch.Tensor) -> torch.Tensor:
    """The nearest matrices with singular values around 1, [matrices, rows, columns]."""
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if tall else x


def optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon orthogonalises the updates of the layers' matrices; AdamW takes the embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    taken = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in taken]
    muon = Muon(matrices, lr=recipe.matrix_lr, weight_decay=recipe.weight_decay)
    adamw = torch.optim.AdamW(others, lr=recipe.other_lr, weight_decay=0.0, betas=(0.9, 0.95))
    return [muon, adamw]


def rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, plateau, linear fall to zero; a factor on each optimizer's own rate."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    return min(1.0, (recipe.steps - step) / (recipe.cooldown * recipe.steps))


def batch(data: torch.Tensor, step: int, recipe: Recipe) -> torch.Tensor:
    """Windows at seeded random places, [windows, length + 1]; the same for a step whether resumed or not."""
    long = step >= recipe.steps * (1 - recipe.long_share)
    length = recipe.context if long else recipe.window
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    starts = torch.randint(len(data) - length - 1, (recipe.tokens_per_step // length,), generator=generator)
    return torch.stack([data[s : s + length + 1] for s in starts])


def loss_of(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


@torch.inference_mode()
def bits_per_character(model: LlamaForCausalLM, data: torch.Tensor, characters: int, window: int) -> float:
    """Held-out loss in bits per character, fp32, over windows that do not overlap (each starts with no context)."""
    model.eval()
    nats = 0.0
    for start in range(0, len(data) - 1, window):
        ids = data[start : start + window + 1][None]
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        nats += float(torch.nn.functional.cross_entropy(logits[0].float(), ids[0, 1:], reduction="sum"))
    model.train()
    return nats / characters / math.log(2)


def save_checkpoint(path: Path, model: LlamaForCausalLM, opts: list[torch.optim.Optimizer], step: int) -> None:
    state = {"step": step, "model": model.state_dict(), "optimizers": [o.state_dict() for o in opts]}
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def load_checkpoint(path: Path, model: LlamaForCausalLM, opts: list[torch.optim.Optimizer]) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for opt, saved in zip(opts, state["optimizers"], strict=True):
        opt.load_state_dict(saved)
    return int(state["step"])


def train(model: LlamaForCausalLM, data: torch.Tensor, recipe: Recipe, checkpoint: Path, report) -> float:
    """Run the remaining steps; returns this run's seconds."""
    opts = optimizers(model, recipe)
    base = [[g["lr"] for g in o.param_groups] for o in opts]
    first = load_checkpoint(checkpoint, model, opts)
    began = time.monotonic()
    model.train()
    for step in range(first, recipe.steps):
        torch.manual_seed(recipe.seed + step)
        for opt, lrs in zip(opts, base, strict=True):
            for group, lr in zip(opt.param_groups, lrs, strict=True):
                group["lr"] = lr * rate(step, recipe)
        loss = loss_of(model, batch(data, step, recipe))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        if (step + 1) % 20 == 0:
            spent = (time.monotonic() - began) / (step + 1 - first)
            print(f"step {step + 1}/{recipe.steps}  loss {loss.item():.3f}  {spent:.2f} s/step", flush=True)
        if (step + 1) % 200 == 0 or step + 1 == recipe.steps:
            save_checkpoint(checkpoint, model, opts, step + 1)
            print(f"step {step + 1}  held-out {report():.4f} bits per character", flush=True)
    return time.monotonic() - began


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """What transformers needs to load the model: float16 weights, configuration, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, model_max_length=model.config.max_position_embeddings)
    fast.save_pretrained(folder)
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.dtype = torch.float16
    model.config.save_pretrained(folder)
    weights = {n: p.detach().to(torch.float16).contiguous() for n, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="the plain-text file to learn from")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, tokenizer and figures")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--export", type=Path, help="write the model here at the end")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    recipe = Recipe(steps=args.steps)
    args.out.mkdir(parents=True, exist_ok=True)
    text = unwrap(args.text.read_text(encoding="utf-8"))
    cut = text.rindex("\n\n", 0, int(len(text) * (1 - recipe.held_out)))
    pieces, held_text = chapters(text[:cut]), text[cut:].strip()
    tokenizer = fit_tokenizer(pieces, recipe.vocabulary)
    data, held = encode(tokenizer, pieces), encode(tokenizer, [held_text])
    model = build_model(recipe, tokenizer)
    size = sum(p.numel() for p in model.parameters())
    print(f"{len(text):,} characters, {len(data):,} tokens, {size:,} parameters, {recipe}", flush=True)

    def report(window: int = recipe.window) -> float:
        return bits_per_character(model, held, len(held_text), window)

    seconds = train(model, data, recipe, args.out / "checkpoint.pt", report)
    figures = {
        "parameters": size,
        "characters": len(text),
        "training_tokens": len(data),
        "held_out_characters": len(held_text),
        "seconds_of_the_last_run": round(seconds),
        "bits_per_character": {str(w): round(report(w), 4) for w in (recipe.window, recipe.context)},
        "recipe": asdict(recipe),
    }
    (args.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    export(model, tokenizer, args.export or args.out / "model")


if __name__ == "__main__":
    main()
