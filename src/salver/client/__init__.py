"""Clients built from a model's signature: rows are checked here before they are sent, answers name their release.

`exchange` decides what to send and what an answer means and touches no socket; `blocking` and `concurrent` only carry.
"""
