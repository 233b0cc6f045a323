"""The lecture, section by section: what is computed, measured and shown."""
