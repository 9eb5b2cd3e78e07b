"""What the keys do: one controller for each part of the app that a user can change."""
