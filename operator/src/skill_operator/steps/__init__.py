"""The stages of an update, one file each: what a stage learns from its children, and what it decides. Pure."""
