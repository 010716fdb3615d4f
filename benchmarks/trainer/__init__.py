"""One SDFT step of ours beside TRL's: seconds, memory, losses, and what the machine's arithmetic allows at best."""
