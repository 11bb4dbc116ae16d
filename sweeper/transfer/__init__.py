"""How does a store get to other storage, and back?"""
