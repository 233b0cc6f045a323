"""The lecture, section by section: each module computes a section and writes its text."""

__all__: list[str] = []
