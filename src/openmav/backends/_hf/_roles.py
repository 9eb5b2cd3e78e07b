"""What a module inside a layer is there for, told by its name, its class and its weights; no list of architectures.

A role says on which side of a layer a module stands: "mlp", or one of MIXERS, which move information between positions.
"""

from __future__ import annotations

import re

from torch import nn

ATTENTION = "attention"
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
_BETWEEN = re.compile(r"hyper_?connection|(^|_)hc($|[^a-z])", re.I)  # they lead the residual stream, whatever else their name says
MIXERS = frozenset(word for word, _ in _WORDS) - {MLP}


def has_matrix(module: nn.Module) -> bool:
    """Whether it holds a weight matrix anywhere, packed ones of quantised layers too; norms and dropouts do not."""
    if any(p.ndim > 1 for p in module.parameters()) or any(b.ndim > 1 for b in module.buffers()):
        return True
    return any(type(inside).__name__.endswith("Linear") for inside in module.modules())


def role(attribute: str, module: nn.Module, layer: nn.Module | None = None) -> str | None:
    """The role that the attribute's or the class's name tells, None where neither says anything.

    With `layer`, the family's name, which the class of the layer starts with too, is held apart: KimiLinear Attention.
    """
    own, shared = _camel(module), 0
    for a, b in zip(own, _camel(layer) if layer is not None else ()):
        if a != b:
            break
        shared += 1
    names = f"{attribute} {''.join(own[:shared])} {''.join(own[shared:])}"
    if _BETWEEN.search(names):
        return None
    return next((word for word, pattern in _WORDS if pattern.search(names)), None)


def _camel(module: nn.Module) -> list[str]:
    """The words of a class name."""
    return re.findall(r"[A-Z]?[^A-Z]+|[A-Z]", type(module).__name__)


def role_in_layer(layer: nn.Module, path: str) -> str | None:
    """The role of `layer.path`: that of the outermost module on the way to it that has one and holds a weight matrix.

    A weight matrix whose path says nothing (OPT's bare `fc2`) belongs to the MLP. None for a norm or dropout, and for a
    module around several sub-blocks.
    """
    module = layer
    for attribute in path.split("."):
        module = getattr(module, attribute)
        if not has_matrix(module):
            return None
        found = role(attribute, module, layer)
        if found:
            return found
    return (
        None if any(role(name.rpartition(".")[2], inside, layer) for name, inside in module.named_modules() if has_matrix(inside)) else MLP
    )


def innermost_attention(block: nn.Module) -> nn.Module:
    """The innermost module of an attention sub-block that is called attention and holds others; the block itself if none is."""
    holders = ((name, module) for name, module in block.named_modules() if any(True for _ in module.children()))
    named = [module for name, module in holders if role(name.rpartition(".")[2], module) == ATTENTION]
    return named[-1] if named else block


def is_list(module: nn.Module) -> bool:
    return isinstance(module, (nn.ModuleList, nn.ModuleDict))
