"""Inference Manager: the front door of a LocalAI server."""

__version__ = "0.1.0"
