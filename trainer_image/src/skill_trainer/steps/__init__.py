"""What the pods do: `check` in seconds on a CPU, `train` with all gates. Each is safe to run again at any point."""
