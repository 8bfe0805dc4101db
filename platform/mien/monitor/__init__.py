"""Whether new predictions still look like those that a model was accepted with."""
