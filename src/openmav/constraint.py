"""`from openmav.constraint import Constraint` is kept from older versions; it is in openmav.settings.constraint."""

from openmav.settings.constraint import Constraint

__all__ = ["Constraint"]
