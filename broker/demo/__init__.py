"""`lethe demo`: the main job on one machine, shown and checked step by step."""
