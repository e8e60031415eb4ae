"""From files to what the model takes: audio, image, manifest, prepared; and how much of the files is used."""
