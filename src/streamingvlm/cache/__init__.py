"""Keys and values of many streams: the pool, batches, attention, rotation."""
