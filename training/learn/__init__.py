"""Active learning: the potential finds the structures it is not sure of, and learns them.

A round explores with the potential of the round before (`explore`), selects what it is uncertain
of (`select`), has it labelled, fits again (`refit`) and writes down what happened (`report`);
`loop` strings the rounds together. One stage after the other leaves its result in the work folder,
and what is there is not computed again.
"""
