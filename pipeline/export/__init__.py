"""From a trained ranker to the files of a bundle."""
