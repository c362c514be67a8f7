"""The rules, by theme; `table.RULES` lists them all."""
