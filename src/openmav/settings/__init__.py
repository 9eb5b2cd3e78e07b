"""What was requested: the settings of a run, how tokens are sampled, constraints, interventions."""

from openmav.settings.run import CORE_MEASURES, DEMO, DEMO_PROMPT, LOAD_TIMEOUT, LONGEST_WAIT, OTHER_PROMPT, Aggregation, Settings

__all__ = ["CORE_MEASURES", "DEMO", "DEMO_PROMPT", "LOAD_TIMEOUT", "LONGEST_WAIT", "OTHER_PROMPT", "Aggregation", "Settings"]
