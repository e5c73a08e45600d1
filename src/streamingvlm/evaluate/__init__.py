"""How good a model is when it reads nothing but its own words, and what each part of the cache is good for."""
