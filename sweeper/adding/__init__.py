"""How does a generator that sweeper did not train become a teacher?"""
