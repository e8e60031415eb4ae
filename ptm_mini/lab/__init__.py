"""The laboratory: commands that ask questions about the method. Nothing of the reference needs it."""
