"""How is it run? Ray Tune, the job of one trial, and its share of the machine."""
