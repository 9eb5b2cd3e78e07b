"""The file's format: an SQLite database with these tables and no other object. docs/recording.md describes each column."""

from __future__ import annotations

APPLICATION = 0x6D617652  # "mavR", at byte 68 of the file
VERSION = 1  # user_version, at byte 60
MAGIC = b"SQLite format 3\0"
ATTENTION = "attention_rows"
LARGEST = "attention_rows_largest"  # what is kept of it beyond the budget, with the places in "attention_rows_largest.ids"
KEPT = 16  # entries of each attention row
ATTENTION_BUDGET = 64 * 2**20  # bytes of whole attention rows in a file

SCHEMA = {
    "meta": "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "branches": (
        "CREATE TABLE branches (id INTEGER PRIMARY KEY, name TEXT NOT NULL, parent INTEGER, at INTEGER NOT NULL, prompt TEXT NOT NULL)"
    ),
    "contexts": "CREATE TABLE contexts (id INTEGER PRIMARY KEY, content TEXT NOT NULL)",
    "steps": (
        "CREATE TABLE steps (id INTEGER PRIMARY KEY, branch INTEGER NOT NULL, step INTEGER NOT NULL, position INTEGER, token_id INTEGER, "
        "token TEXT, text TEXT, special INTEGER, forced INTEGER, logprob REAL, rank INTEGER, entropy REAL, seconds_model REAL, "
        "seconds_capture REAL, seconds_sample REAL, context INTEGER NOT NULL, detail TEXT NOT NULL, data BLOB NOT NULL, "
        "sum INTEGER NOT NULL, UNIQUE (branch, step))"
    ),
    "arrays": (
        "CREATE TABLE arrays (step INTEGER NOT NULL, name TEXT NOT NULL, dtype TEXT NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL, "
        "PRIMARY KEY (step, name)) WITHOUT ROWID"
    ),
    "texts": "CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT NOT NULL, sum INTEGER NOT NULL)",
    "events": (
        "CREATE TABLE events (id INTEGER PRIMARY KEY, seconds REAL NOT NULL, branch TEXT NOT NULL, tokens INTEGER NOT NULL, "
        "changes TEXT NOT NULL)"
    ),
}
SWEEP = {  # besides these in the recording of a sweep
    "effects": (
        "CREATE TABLE effects (id INTEGER PRIMARY KEY, site TEXT NOT NULL, layer INTEGER NOT NULL, head INTEGER, logit REAL, prob REAL, "
        "logprob REAL, minus_logit REAL, change REAL, sum INTEGER NOT NULL)"
    )
}
TABLES = {**SCHEMA, **SWEEP}
