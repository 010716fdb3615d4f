"""What the operator and the steps in pods agree on: the spec, a step's configuration, its answer and its progress.

Everything here is data with its checks. It imports pydantic and the standard library only, so that the operator's image
needs no torch and no boto3 to speak with a trainer.
"""
