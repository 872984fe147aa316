"""The training loop and what it stands on: device, optimizer, checkpoints, progress."""
