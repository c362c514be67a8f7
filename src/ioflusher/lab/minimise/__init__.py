"""A scenario made smaller that still shows the contrast.

`reductions` says what can be taken away or halved, `search` in which order that is tried (delta debugging),
`play` has it played and kept, `text` writes down what was found; all but `play` are pure.
"""
