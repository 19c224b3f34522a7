"""The process that terminates HTTP, dispatches to workers and answers. It never runs model code."""
