"""What was requested: the settings of a run, how tokens are sampled, constraints, interventions."""

from openmav.settings.run import AUTO, CORE_MEASURES, DEMO, DEMO_PROMPT, LOAD_TIMEOUT, LONGEST_WAIT, OTHER_PROMPT, Aggregation, Settings

__all__ = ["AUTO", "CORE_MEASURES", "DEMO", "DEMO_PROMPT", "LOAD_TIMEOUT", "LONGEST_WAIT", "OTHER_PROMPT", "Aggregation", "Settings"]
