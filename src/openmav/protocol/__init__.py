"""What an app sees of a run and may ask of it, whatever the source: snapshots, their history, commands.

A source may be an engine, a recording or a list of steps; how an engine talks to its client is its own matter, in openmav.engine.events.
"""
