"""Which of transformers' classes a configuration loads with: a causal language model, or the text side of an image-text model."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import transformers
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from openmav.errors import LoadError

CAUSAL, IMAGES = "AutoModelForCausalLM", "AutoModelForImageTextToText"
TEXT_SIDE = "an image-text model: mav shows its text side, and images are not used"
IMAGE_PARTS = ("vision", "visual", "image", "projector", "patch", "audio", "video", "multi_modal", "aligner", "connector", "resampler")


def classes(name: str, config: Any, *, trusted: bool) -> tuple[Any, ...]:
    """The auto classes to try, in this order; the next one where weights are missing.

    A text class takes less memory than the whole model, where its weights can be taken from the same files.

    Raises LoadError for other models than causal language models.
    """
    own_code = getattr(config, "auto_map", None)
    if trusted and own_code:
        return (AutoModelForCausalLM if CAUSAL in own_code or IMAGES not in own_code else AutoModelForImageTextToText,)
    named = list(getattr(config, "architectures", None) or ())
    what = ", ".join(named) or config.model_type
    if config.is_encoder_decoder or getattr(config.get_text_config(decoder=True), "is_encoder_decoder", False):
        what += ", an encoder with a decoder"
        raise LoadError(f"{name} is not a causal language model ({what}); mav shows models that write the next token")
    causal = _fits(config, named, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    images = _fits(config, named, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    if images and not causal and not _generates(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[config.model_type]):
        raise LoadError(f"{name} does not write text token by token ({what}); mav shows models that write the next token")
    if images and config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return (AutoModelForCausalLM, AutoModelForImageTextToText)
    if images:
        return (AutoModelForImageTextToText,)
    if causal:
        return (AutoModelForCausalLM,)
    raise LoadError(f"{name} is not a causal language model ({what}); mav shows models that write the next token")


def refuse_other(model: PreTrainedModel) -> None:
    """Raises LoadError for a model that does not write text from text alone, one token at a time."""
    kind = type(model).__name__
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise LoadError(f"{kind} is an encoder with a decoder; mav shows models that write the next token")
    if not hasattr(model, "prepare_inputs_for_generation"):
        raise LoadError(f"{kind} does not write text token by token; mav shows models that write the next token")
    arguments = inspect.signature(model.forward).parameters.values()
    needed = [a.name for a in arguments if a.default is a.empty and a.kind is a.POSITIONAL_OR_KEYWORD and a.name != "input_ids"]
    if needed and "input_ids" in (a.name for a in arguments):
        raise LoadError(f"{kind} needs {' and '.join(needed)} beside text; mav shows models that run on text alone")


def _fits(config: Any, named: list[str], table: Any) -> bool:
    """Whether a table of transformers has this type of configuration, and one of the classes that it names."""
    return config.model_type in table and (not named or bool(set(named) & set(_flat(table.values()))))


def _generates(kind: Any) -> bool:
    """Whether a class of transformers supports `generate`."""
    return all(hasattr(getattr(transformers, name, None), "prepare_inputs_for_generation") for name in _flat([kind]))


def _flat(names: Iterable[Any]) -> Iterable[str]:
    for name in names:
        if isinstance(name, str):
            yield name
        else:
            yield from name


def has_images(config: Any) -> bool:
    """Whether a configuration is that of a model with images as input besides text."""
    own_code = getattr(config, "auto_map", None) or ()
    return config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES or IMAGES in own_code


def image_side(model: PreTrainedModel, unused: Iterable[str]) -> list[str]:
    """The unused tensors that belong to parts for images, which the loaded text model does not have."""
    taken = {key.split(".")[0] for key in model.state_dict()} | {key.split(".")[1] for key in model.state_dict() if "." in key}
    keys = []
    for key in unused:
        start = key.split(".")[:2]
        if any(part not in taken and any(word in part for word in IMAGE_PARTS) for part in start):
            keys.append(key)
    return keys
