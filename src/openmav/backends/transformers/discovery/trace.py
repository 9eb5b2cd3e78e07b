"""Traces tensors through the operations of a forward pass, to write a layer's output as a sum of tensors.

A dispatch mode sees every operation while it runs. Operations that add tensors, multiply them by constants, or only change
their shape or float type are followed exactly, so that a layer's output can be written as its input and other tensors, each
times the numbers that the model's own code multiplied it by. Nothing is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from openmav.backends.transformers.discovery.linear_form import Coefficient, LinearForm, Node, multiplied
from openmav.backends.transformers.discovery.values import tensors_in

Key: TypeAlias = tuple[Any, ...]

# What a tensor was made with since the residual stream: attention weights, another input of the layer, a matrix.
SOFTMAX, OUTSIDE, MATRIX = 1, 2, 4
# The same numbers in another shape, float type or place, where there are as many of them.
_SHAPES = ("view", "_unsafe_view", "reshape", "_reshape_alias", "view_as", "flatten", "unsqueeze", "squeeze", "expand", "slice", "alias")
_SAME = frozenset((*_SHAPES, "transpose", "permute", "t", "movedim", "detach", "clone", "contiguous", "_to_copy", "lift_fresh"))
_CUTS = frozenset(("clamp", "clamp_min", "clamp_max", "nan_to_num", "hardtanh"))  # traced through where they changed nothing
_MATRICES = ("mm", "bmm", "addmm", "baddbmm", "matmul", "linear", "einsum", "convolution", "mv", "addmv", "_grouped_mm", "_scaled_mm")
_ATTENTION = ("scaled_dot_product", "flash_attn", "efficient_attention", "flash_attention", "flex_attention")


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations of one layer at a time, between `begin` and `end`, on tensors of the residual stream's size."""

    def __init__(self, tokens: int, width: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tokens = tokens
        self.width = width
        self.recording = False
        self.stack: list[nn.Module] = []  # the modules that are running
        self.row_owners: dict[nn.Module, None] = {}  # those that computed attention weights, in order
        self.choosers: dict[nn.Module, None] = {}  # those that selected the largest of some numbers, as routers do
        self.overwrites = False  # whether a module's output, or the layer's input, was written to
        self.on_sum: Callable[[Node], None] | None = None  # called with each new sum of the residual stream
        self._nodes: dict[Key, Node] = {}
        self._by_storage: dict[int, dict[Key, None]] = {}
        self._aliases: dict[int, list[tuple[Key, Tensor]]] = {}  # other views of what is being written to
        self._marks: dict[int, int] = {}
        self._outputs: dict[Node, list[str]] = {}
        self._constants: set[int] = set()  # buffers and other tensors that the layer's modules hold

    # ---- one layer -------------------------------------------------------------------------------------------------------

    def begin(self, layer: nn.Module, stream: Tensor | None, others: Iterable[Tensor], weights: Iterable[Tensor] = ()) -> Node | None:
        """Start recording a layer with inputs `stream` and `others`. `stream` None: record only which modules compute attention weights.

        `weights` are used in place of the layer's own.
        """
        self.end()
        self.recording = True
        self._constants = {_storage(t) for m in layer.modules() for t in (*m._buffers.values(), *vars(m).values()) if isinstance(t, Tensor)}
        self._constants.update(map(_storage, weights))
        for tensor in others:
            if tensor.is_floating_point() and tensor.ndim > 1:
                self._marks[_storage(tensor)] = OUTSIDE
        if stream is None:
            return None
        node = Node("leaf", stream, in_stream=True)
        self._put(stream, node)
        return node

    def end(self) -> None:
        """Stop recording, and release the layer's tensors."""
        self.recording = False
        self.stack, self.row_owners, self.choosers = [], {}, {}
        for known in (self._nodes, self._by_storage, self._aliases, self._marks, self._outputs, self._constants):
            known.clear()

    def module_output(self, path: str, tensor: Tensor, *, linear: bool) -> Node | None:
        """Record a module's output; None where it does not have the residual stream's size."""
        if linear:
            self._marks[_storage(tensor)] = self._marks.get(_storage(tensor), 0) | MATRIX
        if tensor.numel() != self.tokens * self.width or not tensor.is_floating_point():
            return None
        node = self.node(tensor)
        self._nodes.setdefault(_key(tensor), node)
        if linear and not node.in_stream:
            node.marks |= MATRIX
        self._outputs.setdefault(node, []).append(path)
        return node

    def take_for_stream(self, tensor: Tensor) -> None:
        """Treat this tensor as the residual stream from now on, for example where a norm of the layer's input replaces it."""
        self._put(tensor, Node("leaf", tensor, in_stream=True))

    def outputs(self, node: Node) -> Sequence[str]:
        """The paths of the modules whose output is this value, in the order in which they finished."""
        return self._outputs.get(node, ())

    def node(self, tensor: Tensor) -> Node:
        """The value that a tensor has now."""
        known = self._nodes.get(_key(tensor))
        if known is not None:
            return known
        place = _storage(tensor)
        constant = place not in self._by_storage and (isinstance(tensor, nn.Parameter) or place in self._constants)
        return Node("leaf", tensor, constant=constant, marks=self._marks.get(place, 0))

    def _put(self, tensor: Tensor, node: Node) -> None:
        key = _key(tensor)
        for other, alias in self._aliases.pop(key[0], ()):
            if other != key and other[1] == key[1] and alias.numel() == tensor.numel() and alias.is_contiguous() and tensor.is_contiguous():
                self._nodes[other] = Node("same", alias, (node,), in_stream=node.in_stream, marks=node.marks)
        self._nodes[key] = node
        self._by_storage.setdefault(key[0], {})[key] = None
        self._marks[key[0]] = node.marks

    # ---- operations ------------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.recording:
            return func(*args, **kwargs)
        tensors = list(tensors_in((args, kwargs)))
        before = [(t, self.node(t)) for t in tensors if self._fits(t)]
        written = _written(func, args, kwargs) if func._schema.is_mutable else []
        for tensor in written:
            self._keep(tensor)
        output = func(*args, **kwargs)
        marks = 0
        for tensor in tensors:
            if not isinstance(tensor, nn.Parameter):  # whose memory may have been another tensor's
                marks |= self._marks.get(_storage(tensor), 0)
        self._record(func._schema.name, args, kwargs, output, written, before, marks)
        return output

    def _fits(self, tensor: Tensor) -> bool:
        """Whether it may be the residual stream, a part of it, or a constant to multiply it by."""
        return tensor.numel() == self.tokens * self.width or tensor.numel() <= self.width

    def _record(
        self, name: str, args: Any, kwargs: Any, output: Any, written: list[Tensor], before: list[tuple[Tensor, Node]], marks: int
    ) -> None:
        outputs = [*tensors_in(output)]
        namespace, _, name = name.rpartition("::")
        if name in ("topk", "sort") and self.stack:
            self.choosers[self.stack[-1]] = None
        opaque = namespace != "aten" or name in _MATRICES or any(word in name for word in _ATTENTION)
        if any(word in name for word in _ATTENTION) or ("softmax" in name and any(self._is_rows(t) for t in outputs)):
            marks |= SOFTMAX
            owner = next((m for m in reversed(self.stack) if any(True for _ in m.children())), None)
            if owner is not None:
                self.row_owners[owner] = None
        if opaque:
            marks |= MATRIX
        known = {id(tensor): node for tensor, node in before}
        for tensor in [*written, *(t for t in outputs if not any(t is w for w in written))]:
            if not self._fits(tensor):
                self._marks[_storage(tensor)] = marks
                continue
            node = self._node_of(name.removesuffix("_"), args, kwargs, tensor, known)
            node.marks = 0 if node.in_stream else marks
            node.opaque = opaque
            self._put(tensor, node)
            if node.in_stream and node.kind in ("sum", "scaled") and self.on_sum is not None:
                self.on_sum(node)

    def _is_rows(self, tensor: Tensor) -> bool:
        """Whether it can be attention weights: [..., queries, keys], not the choice of an expert [tokens, experts]."""
        queries = tensor.ndim >= 3 and tensor.shape[-2] == self.tokens
        return queries and (tensor.ndim >= 4 or tensor.shape[-1] in (self.tokens, self.tokens + 1))

    def _node_of(self, name: str, args: Any, kwargs: Any, output: Tensor, known: dict[int, Node]) -> Node:
        """The node of an operation's output; "made" where the operation can't be traced through."""

        def of(value: Any) -> Node | None:
            return known.get(id(value)) if isinstance(value, Tensor) else None

        inputs = tuple(dict.fromkeys(known.values()))
        constant = all(node.constant for node in inputs) and len(known) == len({id(t) for t in tensors_in((args, kwargs))})
        constant |= name in ("lift_fresh", "lift_fresh_copy")
        first = of(args[0]) if args else None
        second = of(args[1]) if len(args) > 1 else None
        alpha = kwargs.get("alpha", args[2] if len(args) > 2 and isinstance(args[2], (int, float)) else 1)
        untraced = Node("made", output, inputs, constant=constant)
        if constant or not output.is_floating_point():
            return untraced
        if name == "copy" and second is not None and second.tensor.numel() == output.numel():
            return Node("same", output, (second,), in_stream=second.in_stream)
        if first is None or (second is None and len(args) > 1 and isinstance(args[1], Tensor)):
            return untraced
        if (name in _SAME and first.tensor.numel() == output.numel()) or (name in _CUTS and torch.equal(first.value, output)):
            return Node("same", output, (first,), in_stream=first.in_stream)
        if name in ("add", "sub", "rsub") and second is not None and self._adds(first, second, output):
            alpha = float(alpha)
            factors = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[name]
            return Node("sum", output, (first, second), factors, in_stream=first.in_stream or second.in_stream)
        if name == "neg":
            return Node("scaled", output, (first,), by=-1.0, in_stream=first.in_stream)
        if name in ("mul", "div", "true_divide") and len(args) > 1 and kwargs.get("rounding_mode") is None:
            whole, by = (first, second if second is not None else args[1])
            if isinstance(by, Node) and whole.constant and name == "mul":
                whole, by = by, whole
            if self._scales(whole, by, output):
                return Node("scaled", output, (whole,), by=by, inverse=name != "mul", in_stream=whole.in_stream)
        return untraced

    def _adds(self, first: Node, second: Node, output: Tensor) -> bool:
        """Whether both are whole, or one is a constant with one number per channel."""
        channels = [node for node in (first, second) if node.tensor.numel() != output.numel()]
        return all(node.constant and self.per_channel(node) and output.shape[-1] == self.width for node in channels) and len(channels) < 2

    def per_channel(self, node: Node) -> bool:
        return node.tensor.numel() == self.width == node.tensor.shape[-1]

    def _scales(self, whole: Node, by: Any, output: Tensor) -> bool:
        """Whether `by` is a number, or a constant with one number in all or one per channel."""
        if whole.tensor.numel() != output.numel() or whole.constant:
            return False
        if isinstance(by, Node):
            return by.constant and (by.tensor.numel() == 1 or (self.per_channel(by) and output.shape[-1] == self.width))
        return isinstance(by, (int, float))

    def _keep(self, tensor: Tensor) -> None:
        """A tensor is about to be written to: keep copies of its value and of other views of it."""
        place, key = _storage(tensor), _key(tensor)
        self._aliases[place] = []
        for other in self._by_storage.get(place, ()):
            node = self._nodes.get(other)
            if node is None:
                continue
            if node.kept is None:
                node.kept = node.tensor.clone()
            self.overwrites |= bool(self._outputs.get(node)) or (node.kind == "leaf" and node.in_stream)
            if other != key:
                self._aliases[place].append((other, node.tensor))
                del self._nodes[other]

    # ---- the result --------------------------------------------------------------------------------------------------------

    def linear_form(self, output: Node, source: Node, stop: Callable[[Node], bool]) -> LinearForm:
        """`output` as a sum. Terms without the residual stream are traced back to the first node for which `stop` is true."""
        form = LinearForm()
        terms: dict[Node, Coefficient] = {}
        todo: list[tuple[Node, Coefficient]] = [(output, 1.0)]
        while todo:
            node, coefficient = todo.pop()
            if node.tensor.is_floating_point():
                form.eps = max(form.eps, torch.finfo(node.tensor.dtype).eps)
            if node is source:
                form.carry = form.carry + coefficient
            elif node.kind in ("made", "leaf") or (not node.in_stream and stop(node)):
                terms[node] = terms[node] + coefficient if node in terms else coefficient
            else:
                form.steps += 1
                todo += [(child, multiplied(coefficient, factor)) for child, factor in node.expanded()]
        form.terms = list(terms.items())[::-1]
        return form


def _storage(tensor: Tensor) -> int:
    """An id that is equal for all tensors that share memory."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError, AttributeError):  # a tensor that only stands for others, such as a quantised weight
        return id(tensor)


def _key(tensor: Tensor) -> Key:
    return (_storage(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The arguments that an operation writes into."""
    written: list[Tensor] = []
    for at, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[at] if at < len(args) else kwargs.get(argument.name)
            written += tensors_in(value)
    return written
