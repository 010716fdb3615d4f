"""skill_trainer"""
