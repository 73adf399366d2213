"""Time of every node of a graph: predicted from the graph and the peak rates of a host, and measured."""
