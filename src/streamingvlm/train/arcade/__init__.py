"""How the bundled arcade model is made: ``python -m streamingvlm.train.arcade`` (see docs/bundled-model.md)."""
