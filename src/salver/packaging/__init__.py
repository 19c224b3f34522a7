"""Turns parts into a release folder: the code closure, the file list, the manifest."""
