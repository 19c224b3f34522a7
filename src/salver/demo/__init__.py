"""A whole life of a model in a minute, on real data, driven through the command line as a person would."""
