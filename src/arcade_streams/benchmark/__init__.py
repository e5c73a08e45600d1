"""The games as a benchmark in the forms that others are published in, with exact truth: commentary, judge, questions."""
