"""Channel blocks, one a file: what follows the mixer in a layer. They are stateless and look at one token at a time."""
