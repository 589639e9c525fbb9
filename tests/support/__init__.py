"""What the tests share: references, probe environments, processes, and scripts that tests start."""
