"""Errors that are the user's to mend: shown as one message, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Names the thing (file, row, key, actor, step), what was wrong with it and what to do."""


class ConfigError(UserError):
    """The command line or a configuration file cannot be used as it is."""
