"""What will it cost? Known before it runs: the plan, the costs, the simulator."""
