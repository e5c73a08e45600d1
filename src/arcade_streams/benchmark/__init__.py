"""The games as a benchmark in published forms, with exact truth: commentary, a judge of it, questions."""
