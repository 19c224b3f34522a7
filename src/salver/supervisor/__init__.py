"""Starts, watches and replaces gateways and workers, and follows the registry.

The keeper owns the sockets and the children and uses the standard library only; the follower decides what should be
loaded and who is live. The follower may die and come back: the keeper remembers for it, and serving goes on.
"""
