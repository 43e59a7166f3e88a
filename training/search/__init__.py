"""The search for settings: group by group, errors of unseen families against processor time.

`config` says what is varied, `evaluate` fits and times one candidate and remembers it, `loop` goes
through the groups, `pareto` finds the front and its knee, `report` writes both down.
"""
