"""What people type and see: one file per verb, each parses, calls one function, prints, and gives an exit code.

Modules here import the rest of Salver inside their commands, so that `salver --help` starts at once.
"""
