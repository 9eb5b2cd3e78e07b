"""Screens over the app: help, forms, lists, the command palette."""
