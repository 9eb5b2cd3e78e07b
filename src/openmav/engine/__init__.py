"""A session in a process of its own, and the client that an app sees as a Source.

The process is started by spawn and talks through one pipe: commands in, events out. The client's thread drains the pipe into
a History, so that an app never waits for the model and the model never waits for an app. When either side dies the other
notices at once: the client shows a clear line, the engine ends.
"""

from openmav.engine.client import EngineSource

__all__ = ["EngineSource"]
