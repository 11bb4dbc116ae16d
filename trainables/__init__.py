"""One trial: networks, objectives, data, the training loop and scores. No Ray, no W&B."""
