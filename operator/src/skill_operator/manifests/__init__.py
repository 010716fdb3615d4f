"""Builders of child objects: from a SkillUpdate to plain dicts, one builder per child. Pure."""
