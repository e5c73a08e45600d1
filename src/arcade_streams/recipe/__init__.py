"""How the bundled arcade model is made: ``python -m arcade_streams.recipe`` (see docs/bundled-model.md)."""
