"""The likely role of a module inside a layer, by its name, its class and its weights; there is no list of architectures.

Names are used only where a trial can't decide: which kind of recurrent mixer a module is, and what a layer holds that can't be run
on its own. A role is "mlp", or one of MIXERS, which move information between positions.
"""

from __future__ import annotations

import re

from torch import nn

ATTENTION = "attention"
OTHER_ATTENTION = "other attention"  # named attention, but no softmax over the positions was seen in it
MLP = "mlp"
_WORDS = (  # the first that matches wins: a class name often starts with the name of its family, so the surest words come first
    (MLP, re.compile(r"mlp|feed_?forward|ffn", re.I)),
    ("state space", re.compile(r"mamba|(^|[^a-z])ssm|state_?space", re.I)),
    ("linear attention", re.compile(r"delta_?net|delta_?attention|linear_?att|lightning|retention|rwkv\s*\w*attention|lstm", re.I)),
    (ATTENTION, re.compile(r"attention|attn|MLA$", re.I)),
    (MLP, re.compile(r"moe|expert|(^|[^a-z])ff($|[^a-z])", re.I)),
    ("convolution", re.compile(r"conv", re.I)),
    ("recurrence", re.compile(r"recurrent|lru", re.I)),
)
_BETWEEN = re.compile(r"hyper_?connection|(^|_)hc($|[^a-z])", re.I)  # they route the residual stream, whatever else their name says
_RECURRENT = ("state space", "linear attention", "recurrence")
MIXERS = frozenset(word for word, _ in _WORDS) - {MLP}


def has_matrix(module: nn.Module) -> bool:
    """Whether it holds a weight matrix anywhere, packed ones of quantised layers too; norms and dropouts do not."""
    if any(p.ndim > 1 for p in module.parameters()) or any(b.ndim > 1 for b in module.buffers()):
        return True
    return any(type(inside).__name__.endswith("Linear") for inside in module.modules())


def role(attribute: str, module: nn.Module, layer: nn.Module | None = None) -> str | None:
    """The role named by the attribute or the class, None where neither names one.

    With `layer`, the name of the model family, with which the class of the layer starts too, is split off: KimiLinear Attention.
    """
    own, shared = _camel(module), 0 if layer is None else _shared_words(module, layer)
    names = f"{attribute} {''.join(own[:shared])} {''.join(own[shared:])}"
    if _BETWEEN.search(names):
        return None
    return next((word for word, pattern in _WORDS if pattern.search(names)), None)


def _shared_words(module: nn.Module, layer: nn.Module) -> int:
    """How many words both class names begin with: the name of the model family."""
    pairs = list(zip(_camel(module), _camel(layer)))
    return next((at for at, (a, b) in enumerate(pairs) if a != b), len(pairs))


def _camel(module: nn.Module) -> list[str]:
    """The words of a class name."""
    return re.findall(r"[A-Z]?[^A-Z]+|[A-Z]", type(module).__name__)


def role_in_layer(layer: nn.Module, path: str) -> str | None:
    """The role of `layer.path`: that of the outermost module on the way to it that has one and holds a weight matrix.

    A weight matrix whose path names no role (OPT's bare `fc2`) belongs to the MLP. None for a norm or dropout, and for a
    module around several sub-blocks.
    """
    module = layer
    for attribute in path.split("."):
        module = getattr(module, attribute)
        if not has_matrix(module):
            return None
        named = role(attribute, module, layer)
        if named:
            return named
    return (
        None if any(role(name.rpartition(".")[2], inside, layer) for name, inside in module.named_modules() if has_matrix(inside)) else MLP
    )


def innermost_attention(block: nn.Module) -> nn.Module:
    """The innermost module of an attention sub-block that is named attention and has children; the block itself if there is none."""
    holders = ((name, module) for name, module in block.named_modules() if any(True for _ in module.children()))
    named = [module for name, module in holders if role(name.rpartition(".")[2], module) == ATTENTION]
    return named[-1] if named else block


def is_list(module: nn.Module) -> bool:
    return isinstance(module, (nn.ModuleList, nn.ModuleDict))


def is_linear(module: nn.Module) -> bool:
    """Whether it is a single weight matrix, plain or packed."""
    return has_matrix(module) and (not any(True for _ in module.children()) or type(module).__name__.endswith("Linear"))


def is_called_mlp(layer: nn.Module, path: str) -> bool:
    """Whether a name on the way to a module says that it belongs to an MLP; the family's name does not count."""
    module, is_mlp = layer, False
    for attribute in path.split("."):
        module = getattr(module, attribute)
        own = "".join(_camel(module)[_shared_words(module, layer) :])
        is_mlp = is_mlp or next((word for word, pattern in _WORDS if pattern.search(f"{attribute} {own}")), None) == MLP
    return is_mlp


def recurrent_kind(layer: nn.Module, path: str) -> str | None:
    """The kind of a recurrent mixer, by its own name or that of a module inside; None where none says it."""
    block = layer.get_submodule(path)
    names = [(path.rpartition(".")[2], block), *((name.rpartition(".")[2], m) for name, m in block.named_modules() if name)]
    kinds = [role(name, module, layer) for name, module in names]
    return next((kind for kind in kinds if kind in _RECURRENT), None)
