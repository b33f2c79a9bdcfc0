"""The geometry of a loss: a loss as a function of weights in, arrays out."""
