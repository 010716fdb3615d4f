"""`kubectl skill`: what people do with SkillUpdates at a terminal. It reads and patches them, and nothing else."""
