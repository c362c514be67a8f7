"""Many experiments from one plan: all combinations of its axes, measured, tallied and judged.

| module | from | to | pure |
|---|---|---|---|
| `plan` | a plan file's TOML text | `MatrixPlan` | yes |
| `cells` | a plan and its scenarios | `Cell`s: each combination, or why it fits no scenario | yes |
| `prepare` | cells | those that can be played here, with their kernels | no |
| `work` | cells and what is measured | `Task`s: the runs that are missing, in the order to play them | yes |
| `play` | tasks | halves in the store, played by processes here or on a cluster's workers | no |
| `tally` | a cell's halves | how often it froze, lived or did otherwise, with confidence intervals | yes |
| `judgement` | tallies | which hardening is sufficient, which necessary, what the plan does not show | yes |
| `result` | all of that | what the reports show | yes |

A matrix has no state of its own. What belongs to a cell is told by what was played (`ioflusher.lab.trials`):
the store's runs whose scenario, kernel and accelerator are the cell's. So a matrix goes on where it was
interrupted, a larger plan takes over what a smaller one has measured, and so does one that was written anew.
"""
