"""From other distillation toolboxes to this one: configs, checkpoints, and a report of what changed."""
