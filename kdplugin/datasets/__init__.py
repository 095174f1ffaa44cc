"""The embedded default data: scenes of handwritten digits, drawn on the user's own machine."""
