"""What can be measured on a CPU of what only a large job needs, held against what was foretold of it."""
