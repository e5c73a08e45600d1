"""Video in and out: files to chunks, the clock that paces them, and the clips that ``record`` writes."""
