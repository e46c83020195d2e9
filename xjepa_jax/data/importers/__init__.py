"""Archives of co-located scenes, one module per format; each lists the pairs and reads one."""
