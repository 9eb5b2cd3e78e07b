"""The layouts that mav brings: a name, and the panels that it shows, in their order. Keys 1, 2, ... are the layouts from the top."""

from __future__ import annotations

LAYOUTS: dict[str, tuple[str, ...]] = {
    "overview": (
        "generated_text",
        "top_predictions",
        "output_distribution",
        "mlp_norm",
        "attention_entropy",
        "residual_norms",
        "timeline",
    ),
    "attention": ("generated_text", "attention_map", "attention_row", "timeline"),
    "lens": ("generated_text", "top_predictions", "logit_lens", "lens_map", "timeline"),
    "sampling": ("generated_text", "top_predictions", "sampler_waterfall", "output_distribution", "uncertainty", "timeline"),
    "layers": ("mlp_norm", "attention_norms", "residual_norms", "attribution", "neurons", "timeline"),
    "minimal": ("generated_text", "timeline"),
    "health": ("health", "accounting", "uncertainty", "norm_map", "timeline"),
    "hands-on": ("generated_text", "top_predictions", "branches", "interventions", "timeline"),
    "focus": ("generated_text", "token_card", "timeline"),
}
COMPARE: dict[str, tuple[str, ...]] = {  # before the others where two runs are compared
    "compare": ("compare_text", "compare_candidates", "compare_layers", "compare_map", "timeline"),
}
LEADS: dict[str, str] = {  # the panel that is shown first where there is room for one, if it is not the first of the layout
    "attention": "attention_row",
    "lens": "logit_lens",
    "sampling": "sampler_waterfall",
    "layers": "attribution",
    "hands-on": "interventions",
    "compare": "compare_map",
}
