"""What several panels share: rows of layers, heat cells, bars around 0, sparklines, wrapped text, and what they read from a run."""
