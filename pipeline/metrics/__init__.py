"""The metrics of the field: plain functions on numpy arrays, and one report for each task.

A value is never NaN: where it is undefined it is None, and the report says why beside it. For every metric but the
correlation that depends on the truth alone, so that two models are compared on the same. `truth` comes before
`predicted` everywhere.
"""
