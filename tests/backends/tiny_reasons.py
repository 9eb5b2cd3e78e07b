"""What transformers raises for a type that it can't build or can't run on text, in plain words."""

from __future__ import annotations

import re

_PLAIN: tuple[tuple[str, str], ...] = (  # the first that is found in the message; what it names goes into the words
    (r"requires the (\w+) library|No module named '(\w+)'", "it needs the package {0}"),
    (r"pixel_values|flattened_patches|image_(?:embeds|hidden_states|features|attention_mask)|[Ii]mages? ", "it needs an image"),
    (r"inputs_embeds and (shared_kv_states) cannot be None", "it drafts for another model, and takes that model's states with each token"),
    (
        r"layer types producing a cache is different",
        "its configuration shares the keys and values of every layer, which its own model class refuses",
    ),
    (r"missing \d+ required positional arguments?: (.+)", "its forward pass needs something beside the tokens: {0}"),
    (r"Unrecognized configuration class .*for this kind of AutoModel: (\w+)", "transformers lists it, but its {0} does not take it"),
    (r"'sampler_config'", "it writes whole blocks of tokens by diffusion, not one token after another"),
    (r"'(\w+)' object has no attribute '(\w+)'", "transformers' own code asks {0} for '{1}', which that does not have"),
    (r"same dtype|mixed dtype|expected scalar type", "a part of its code computes in float32, and the two float types do not mix"),
)


def in_words(error: Exception) -> str:
    """The reason in words; one that nobody has put into words yet as the error that it is, in one line."""
    lines = str(error).strip().splitlines() or [""]
    message = " ".join((lines[-1] if lines[0].startswith("Class validation") else str(error)).split())
    for pattern, words in _PLAIN:
        if found := re.search(pattern, message):
            return words.format(*(group for group in found.groups() if group))
    return f"{type(error).__name__}: {message[:160]}"
