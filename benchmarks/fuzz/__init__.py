"""Every parser of the library, fed with what a fuzzer makes up."""
