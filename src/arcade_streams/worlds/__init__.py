"""Something to watch with exact truth: endless Atari Pong, its commentary, and the score of a commentary."""
