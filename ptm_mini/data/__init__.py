"""From files to batches: audio, image, dataset."""
