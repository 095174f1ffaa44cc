"""The exceptions a user can meet. Each message reads "Expected X but got Y. Do Z."."""

from __future__ import annotations


class KDPluginError(Exception):
    """Base of every error that a user's mistake can cause; tools print it without a traceback."""


class ConfigError(KDPluginError):
    """A config value that cannot be used: unknown key, wrong type, contradiction."""


class PathError(KDPluginError):
    """A module path or pattern that names nothing in the model."""


class TapError(KDPluginError):
    """A tap that did not fire, carries no gradient, or differs between student and teacher."""


class CheckpointError(KDPluginError):
    """A checkpoint that is missing, damaged, unsafe or belongs to another model."""


class DataError(KDPluginError):
    """A data folder, annotation or image that is missing or malformed."""


class NumericError(KDPluginError):
    """A distillation term that is NaN or infinite."""
