"""skill_operator"""
