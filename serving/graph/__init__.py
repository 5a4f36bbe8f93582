"""Running a bundle's graph: the engine, its inputs and answers, and users' tables."""
