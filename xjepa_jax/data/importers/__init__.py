"""Archives of co-located scenes, one module a format; each lists pairs and reads one."""
