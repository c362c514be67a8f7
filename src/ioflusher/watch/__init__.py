"""Live: what memory, devices and the daemons that serve them do, and what of it is a near miss or a stall.

`sample` has the records, `alarms` what is told of them; both are pure. What a stall is, `kernel.stall` says:
whoever ends one judges by the same rule.
"""
