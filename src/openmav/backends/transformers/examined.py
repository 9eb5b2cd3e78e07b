"""What is known of a model once it is loaded: its parts, the checks that they passed, and how its cache goes back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import nn

from openmav.backends.transformers.capture import module_state
from openmav.backends.transformers.checks import passes, verify
from openmav.backends.transformers.checks.going_back import goes_back
from openmav.backends.transformers.decoding.decoder import Decoder, Traits, set_traits
from openmav.backends.transformers.discovery import anatomy
from openmav.backends.transformers.loading import placement, quantised
from openmav.errors import LoadError, MavError, words_of
from openmav.system.memory import out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from openmav.backends.transformers.checks.verify import Checked
    from openmav.backends.transformers.discovery.anatomy import Anatomy


@dataclass(frozen=True)
class Examined:
    """A model's parts and what was checked of them.

    `missing` is {site: {layer: reason}}. `cuts`: going back cuts the cache. `reads_again`: the model keeps state that was not found, so
    going back reads all tokens again.
    """

    model: PreTrainedModel
    anatomy: Anatomy
    checked: Checked
    missing: Mapping[str, Mapping[int, str]]
    cuts: bool
    reads_again: bool


def examine(model: PreTrainedModel) -> Examined:
    """Trace the model and check what can be shown of it.

    Raises LoadError where it has no weights, or does not run on a few tokens of text.
    """
    placement.need_weights(model)
    with _runs_on_text(model):
        set_traits(model, Traits())
        scan, written = module_state.Scan(model), _written(model)
        parts = anatomy.find(model)
        checked = verify.check(model, parts, scan)
        slots = scan.changed()
        if _written(model) != written:  # RWKV scales its weights and says so in a flag: the flag goes with the weights
            slots = tuple(slot for slot in slots if not isinstance(slot.initial, bool))
        small = module_state.size(module_state.take(slots)) <= module_state.SMALL
        module_state.put_back(slots)
        traits = Traits(slots, small, checked.in_one_piece)
        set_traits(model, traits)
        with quantised.without_gradients(model):
            reads_again = not ((checked.goes_back and not slots) or goes_back(model, passes.sample_ids(model)))
        if reads_again:
            set_traits(model, replace(traits, reads_again=True))
        missing = _merged(parts.missing, checked.missing)
        decoder = Decoder(model)
        decoder.prepare(passes.sample_ids(model)[:1])
        return Examined(model, replace(parts, missing=missing), checked, missing, decoder.exact_crop, reads_again)


@contextmanager
def _runs_on_text(model: PreTrainedModel) -> Iterator[None]:
    """Within it, what a model raises when it is given a few tokens becomes a LoadError of one line; a lack of memory stays what it is."""
    try:
        yield
    except MavError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        why = words_of(error, kind=True)
        raise LoadError(f"{type(model).__name__} does not run on a few tokens of text as it is configured ({why})") from error


def _written(model: nn.Module) -> int:
    """How often the weights were written to, all together."""
    return sum(0 if weight.is_inference() else weight._version for weight in model.parameters())


def _merged(*parts: Mapping[str, Mapping[int, str]]) -> dict[str, dict[int, str]]:
    """One mapping {site: {layer: reason}} of several; a site that no layer lacks has an empty one."""
    merged: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for part in parts:
        for site, layers in part.items():
            merged[site].update(layers)
    return merged
