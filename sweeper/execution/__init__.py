"""How is it run? With Ray Tune: the job of one trial, and its share of the machine."""
