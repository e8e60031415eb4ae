"""Scripts that turn raw files into a prepared set: a folder with manifest.csv and classes.json."""
