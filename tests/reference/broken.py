"""A module of a user that fails when it is imported."""

raise RuntimeError("this module cannot be imported")
