"""LoRA adapters of a live engine: the agent that runs beside it, in the pod."""
