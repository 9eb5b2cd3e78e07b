"""Widgets of the app. Nothing is imported here: the first paint draws without Textual."""
