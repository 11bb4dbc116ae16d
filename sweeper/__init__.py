"""What to train, where, when to stop, and what it came to."""

__version__ = "0.1.0"
