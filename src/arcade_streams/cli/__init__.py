"""Commands that this package adds to ``streamingvlm``; heavy imports wait until one of them runs."""
