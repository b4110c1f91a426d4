"""Network files: safetensors and the metadata beside the weights."""
