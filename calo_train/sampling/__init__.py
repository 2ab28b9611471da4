"""From a generator to a file of showers: keyed noise, tiles, shards, the writer."""
