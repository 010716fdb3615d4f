"""skill_store"""
