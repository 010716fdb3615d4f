"""One module a command: it defines COMMAND, and `kubectl skill` has it."""
