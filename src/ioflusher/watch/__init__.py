"""Live: what memory, devices and the daemons that serve them do, and what of it is a near miss or a stall.

`sample` has the records, `alarms` the rule; both are pure, and need the standard library alone, as does
`request_age`: whoever has to go on in a frozen machine judges by the same rule.
"""
