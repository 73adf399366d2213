"""Resources of this host: memory, cores, CPU features."""
