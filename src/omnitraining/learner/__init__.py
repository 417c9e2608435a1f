"""From a trained model to a fitted few-shot predictor: fit, predict, save, load."""
