"""What many rooms need and none owns: sizes, text, TOML, running programs. Standard library only."""
