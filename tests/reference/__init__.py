"""The paper's equations as slow and obvious code, to compare the library with."""
