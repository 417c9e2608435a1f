"""Many visitors, many threads, many steps: what load does to answers and to memory."""
