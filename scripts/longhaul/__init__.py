"""longhaul's Python side: the local launcher, the live view and the figures. All of it reads events.jsonl."""

__version__ = "0.1.0"
