"""Jobs on clusters: what is uploaded, what is asked for, and who is asked (Ray, Kubernetes)."""
