"""Every parser of the library, with inputs that a fuzzer generates."""
