"""The embedded world: a small world of people made by code, in which every step of the method runs for real.

Here live the procedural bust (`mannequin`), the identities built on it and how their portraits and weights were made.
The method's packages never import this one; it may import theirs.
"""
