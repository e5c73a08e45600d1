"""How the bundled arcade model is made: ``python -m arcade_streams.recipe`` (docs/arcade_streams/bundled-model.md)."""
