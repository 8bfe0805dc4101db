"""Using a trained model: the package that is shipped, and prediction of whole files with it."""
