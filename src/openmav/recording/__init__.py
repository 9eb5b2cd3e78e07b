"""Runs on the disk: written as they go, opened again without a model, checked, exported and compared. docs/recording.md has the format."""
