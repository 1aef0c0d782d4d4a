"""The commands of `had` that are more than one call; each is imported when it is used."""
