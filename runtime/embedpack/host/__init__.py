"""Resources of this machine: memory, cores, CPU features."""
