"""Checkpoints: one file per Hugging Face model_type and one line in :data:`~streamingvlm.models.load.load.FAMILIES`."""
