"""The model repository in object storage: versions, their manifests, the head, and verified transfer.

Runs in small images, so it must never import torch or transformers; boto3 stands behind `s3` alone.
"""
