"""The laboratory: commands that ask questions about the method. Only its own modules import it."""
