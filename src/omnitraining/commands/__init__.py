"""Commands of the omni program that have a file of their own: `main(arguments)` runs one."""
