"""The control plane: it plans, starts and watches the steps of a SkillUpdate, and never touches storage itself."""
