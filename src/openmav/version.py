"""The version of mav."""

__version__ = "1.0.0"
